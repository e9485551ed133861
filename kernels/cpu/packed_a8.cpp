// packed_a8.h: checks, and the contract in plain loops.
#include "kernels/packed_a8.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/cpu/packed_scales.h"

namespace satin::kernels {
namespace {

int code_at(const PackedMatrix& w, int64_t row, int64_t column) {
  const CodePlace place = place_of(w.shape, row, column);
  if (w.shape.bits != 3) return static_cast<int>(w.words[place.word] >> place.bit & ((1u << w.shape.bits) - 1));
  return static_cast<int>((w.words[place.word] >> place.bit & 3u) |
                          ((w.words[place.high_word] >> place.high_bit & 1u) << 2));
}

}  // namespace

void check_a8(const PackedMatrix& w, int64_t num_rows) {
  check(w.shape);
  if (w.shape.bits > 4) throw std::invalid_argument("packed_a8: bits is to be 1 to 4");
  if (num_rows < 0) throw std::invalid_argument("packed_a8: num_rows is negative");
  if (w.step < 1 || w.step > 2) throw std::invalid_argument("packed_a8: step is to be 1 or 2");
  if (!w.zeros && (w.zero < 0 || w.zero > 127)) throw std::invalid_argument("packed_a8: zero is to be 0 to 127");
}

template <class T>
void packed_a8_reference(const PackedA8Reference<T>& args, int64_t brick_row_begin, int64_t brick_row_end) {
  const PackedMatrix& w = args.w;
  const PackedShape& shape = w.shape;
  check_a8(w, args.num_rows);
  const int64_t columns = shape.num_columns, row_bytes = a8_row_bytes(columns);
  const bool whole_row = shape.num_groups() == 1;
  const int64_t chunk = whole_row ? columns : std::min<int64_t>(shape.group_size, kBrickColumns);
  const int64_t last = std::min(brick_row_end * kBrickRows, shape.num_rows);
  std::vector<T> levels(static_cast<size_t>(columns));
  for (int64_t n = brick_row_begin * kBrickRows; n < last; ++n) {
    const auto of_group = [&](int64_t k) { return scale_index(shape, n, k / shape.group_size); };
    for (int64_t k = 0; k < columns; ++k) {
      const int zero = w.zeros ? w.zeros[of_group(k)] : w.zero;
      levels[static_cast<size_t>(k)] = static_cast<T>(w.step * code_at(w, n, k) - zero);
    }
    for (int64_t m = 0; m < args.num_rows; ++m) {
      T total = 0;
      for (int64_t first = 0; first < columns; first += chunk) {
        double sum = 0;
        for (int64_t k = first; k < std::min(first + chunk, columns); ++k)
          sum += static_cast<double>(levels[static_cast<size_t>(k)]) *
                 static_cast<int8_t>(args.codes[m * row_bytes + a8_place(k)]);
        const T scale =
            static_cast<T>(half_value(w.scale_dtype, static_cast<const uint16_t*>(w.scales)[of_group(first)]));
        total = std::fma(scale, static_cast<T>(sum), total);
      }
      const T y = total * args.scales[m];
      args.y[m * shape.num_rows + n] = args.bias ? y + args.bias[n] : y;
    }
  }
}
template void packed_a8_reference<float>(const PackedA8Reference<float>&, int64_t, int64_t);
template void packed_a8_reference<double>(const PackedA8Reference<double>&, int64_t, int64_t);

}  // namespace satin::kernels
