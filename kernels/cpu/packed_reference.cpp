// packed_matmul.h in plain loops, and the weights themselves.
#include <algorithm>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/packed_scales.h"
#include "kernels/packed_matmul.h"

namespace satin::kernels {
namespace {

uint32_t code_at(const PackedMatrix& w, int64_t row, int64_t column) {
  const CodePlace place = place_of(w.shape, row, column);
  if (w.shape.bits != 3) return w.words[place.word] >> place.bit & ((1u << w.shape.bits) - 1);
  return (w.words[place.word] >> place.bit & 3u) | ((w.words[place.high_word] >> place.high_bit & 1u) << 2);
}

template <Rounding kRounding>
SATIN_INLINE void dequantize_row(const uint8_t* codes, int64_t count, float scale, float zero, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = round_to(kRounding, scale * (static_cast<float>(codes[i]) - zero));
}
/// One row's groups: codes and scales of a row, [group] of them `stride` apart.
template <Rounding kRounding>
SATIN_INLINE void dequantize_loop(const PackedShape* shape, const uint8_t* codes, const float* scales,
                                  const float* zeros, float* out) {
  for (int64_t group = 0; group < shape->num_groups(); ++group) {
    const int64_t first = group * shape->group_size;
    dequantize_row<kRounding>(codes + first, std::min(shape->group_size, shape->num_columns - first),
                              scales[group * kBrickRows], zeros[group * kBrickRows], out + first);
  }
}

}  // namespace

template <class T>
void packed_matmul_reference(const PackedMatmulArgs<T>& args, int64_t brick_row_begin, int64_t brick_row_end) {
  const PackedMatrix& w = args.w;
  const PackedShape& shape = w.shape;
  const int64_t last = std::min(brick_row_end * kBrickRows, shape.num_rows);
  for (int64_t n = brick_row_begin * kBrickRows; n < last; ++n)
    for (int64_t m = 0; m < args.num_rows; ++m) {
      T sum = 0;
      for (int64_t group = 0; group < shape.num_groups(); ++group) {
        const int64_t at = scale_index(shape, n, group);
        const int zero = w.zeros ? w.zeros[at] : w.zero;
        T of_group = 0;
        for (int64_t k = group * shape.group_size; k < std::min((group + 1) * shape.group_size, shape.num_columns); ++k)
          of_group +=
              static_cast<T>(w.step * static_cast<int>(code_at(w, n, k)) - zero) * args.x[m * shape.num_columns + k];
        sum += static_cast<T>(half_value(w.scale_dtype, static_cast<const uint16_t*>(w.scales)[at])) * of_group;
      }
      if (args.bias) sum += args.bias[n];
      if (args.residual) sum += args.residual[m * shape.num_rows + n];
      args.y[m * shape.num_rows + n] = sum;
    }
}
template void packed_matmul_reference<float>(const PackedMatmulArgs<float>&, int64_t, int64_t);
template void packed_matmul_reference<double>(const PackedMatmulArgs<double>&, int64_t, int64_t);

void packed_dequantize_cpu(const PackedMatrix& w, Rounding rounding, int64_t brick_row_begin, int64_t brick_row_end,
                           float* out) {
  const PackedShape& shape = w.shape;
  const auto group_floats = static_cast<size_t>(shape.num_groups() * kBrickRows);
  std::vector<float> scales(group_floats), zeros(group_floats);
  std::vector<uint8_t> codes(static_cast<size_t>(kBrickRows * shape.num_columns));
  for (int64_t row = brick_row_begin; row < brick_row_end; ++row) {
    PackedShape of_row = shape;
    of_row.num_rows = std::min<int64_t>(kBrickRows, shape.num_rows - row * kBrickRows);
    unpack_codes(of_row, 0, 1, w.words + row * shape.column_bricks() * shape.brick_words(), codes.data());
    read_scales(w, row, scales.data(), zeros.data());
    for (int64_t r = 0; r < of_row.num_rows; ++r) {
      const int64_t in_pairs = r % 8 * 2 + r / 8;
      const uint8_t* from = codes.data() + r * shape.num_columns;
      const float *scale = scales.data() + in_pairs, *zero = zeros.data() + in_pairs;
      float* to = out + ((row - brick_row_begin) * kBrickRows + r) * shape.num_columns;
      switch (rounding) {
        case Rounding::kNone:
          run_widest<dequantize_loop<Rounding::kNone>>(&shape, from, scale, zero, to);
          break;
        case Rounding::kBFloat16:
          run_widest<dequantize_loop<Rounding::kBFloat16>>(&shape, from, scale, zero, to);
          break;
        case Rounding::kFloat16:
          run_widest<dequantize_loop<Rounding::kFloat16>>(&shape, from, scale, zero, to);
          break;
      }
    }
  }
}

}  // namespace satin::kernels
