#include "ops/packed_weight.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "core/error.h"
#include "ops/a8_kernels.h"
#include "ops/decode_kernels.h"
#include "ops/over_rows.h"

namespace satin::ops {
namespace {

using kernels::kBrickColumns;
using kernels::kBrickRows;

/// Of rows [N, G]: [row brick][group][8] pairs of rows g and g + 8, filled up with zeros.
at::Tensor in_pairs(const at::Tensor& of_rows, const kernels::PackedShape& shape) {
  at::Tensor whole = at::zeros({shape.row_bricks() * kBrickRows, shape.num_groups()}, of_rows.options());
  whole.narrow(0, 0, shape.num_rows).copy_(of_rows);
  return whole.view({shape.row_bricks(), 2, 8, shape.num_groups()}).permute({0, 3, 2, 1}).reshape(-1);
}

/// Of the rows that `indices` name, [n, G].
at::Tensor of_rows(const at::Tensor& pairs, const kernels::PackedShape& shape, const at::Tensor& indices) {
  return pairs.view({shape.row_bricks(), shape.num_groups(), 8, 2})
      .permute({0, 3, 2, 1})
      .reshape({-1, shape.num_groups()})
      .index_select(0, indices);
}

/// Bit positions of a brick's codes, [16][128]: of one plane.
struct Places {
  at::Tensor words, bits;
};
Places find_places(int num_bits, bool high) {
  const kernels::PackedShape brick{kBrickRows, kBrickColumns, num_bits, kBrickColumns};
  Places found{at::empty({kBrickRows, kBrickColumns}, at::kLong), at::empty({kBrickRows, kBrickColumns}, at::kInt)};
  for (int64_t i = 0; i < kBrickRows * kBrickColumns; ++i) {
    const kernels::CodePlace place = kernels::place_of(brick, i / kBrickColumns, i % kBrickColumns);
    found.words.mutable_data_ptr<int64_t>()[i] = high ? place.high_word : place.word;
    found.bits.mutable_data_ptr<int32_t>()[i] = high ? place.high_bit : place.bit;
  }
  return found;
}

/// Codes of the rows that `indices` name, [n, K] int32; on the CPU.
at::Tensor codes_of_rows(const PackedWeight& weight, const at::Tensor& indices) {
  const kernels::PackedShape& shape = weight.shape;
  const at::Tensor bricks = weight.words.view({shape.row_bricks(), shape.column_bricks(), shape.brick_words()})
                                .index_select(0, indices.div(kBrickRows, "floor"));
  const at::Tensor in_brick = indices.remainder(kBrickRows);
  const auto plane = [&](bool high, int num_bits) {
    const Places all = find_places(shape.bits, high);
    const at::Tensor words =
        all.words.index_select(0, in_brick).unsqueeze(1).expand({-1, shape.column_bricks(), kBrickColumns});
    const at::Tensor bits = all.bits.index_select(0, in_brick).unsqueeze(1);
    return bricks.gather(2, words).bitwise_right_shift(bits).bitwise_and((1 << num_bits) - 1);
  };
  at::Tensor codes = plane(false, shape.bits == 3 ? 2 : shape.bits);
  if (shape.bits == 3) codes = codes + plane(true, 1) * 4;
  return codes.view({indices.size(0), -1}).narrow(1, 0, shape.num_columns);
}

at::Tensor rows_of_cuda(const PackedWeight& weight, int64_t first, const at::Tensor& indices, int64_t num,
                        at::ScalarType dtype) {
  const at::ScalarType made = dtype == at::kBFloat16 || dtype == at::kHalf ? dtype : at::kFloat;
  const at::Tensor out = at::empty({num, weight.shape.num_columns}, weight.scales.options().dtype(made));
  packed_dequantize(weight, first, indices, out, made);
  return out.to(dtype);
}

}  // namespace

kernels::Rounding rounding_to(at::ScalarType dtype) {
  return dtype == at::kBFloat16 ? kernels::Rounding::kBFloat16
         : dtype == at::kHalf   ? kernels::Rounding::kFloat16
                                : kernels::Rounding::kNone;
}

PackedWeight PackedWeight::to(at::Device device) const {
  PackedWeight moved = *this;
  moved.words = words.to(device);
  moved.scales = scales.to(device);
  if (zeros.defined()) moved.zeros = zeros.to(device);
  return moved;
}

int64_t PackedWeight::bytes() const {
  return static_cast<int64_t>(words.nbytes() + scales.nbytes() + (zeros.defined() ? zeros.nbytes() : 0));
}

kernels::PackedMatrix PackedWeight::matrix() const {
  return {shape,
          reinterpret_cast<const uint32_t*>(words.const_data_ptr<int32_t>()),
          scales.const_data_ptr(),
          zeros.defined() ? zeros.const_data_ptr<uint8_t>() : nullptr,
          scales.scalar_type() == at::kHalf ? kernels::Half::kFloat16 : kernels::Half::kBFloat16,
          step,
          zero};
}

PackedWeight pack_codes(const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& zero, int constant_zero,
                        int bits, int step, at::ScalarType scale_dtype, at::ScalarType dequant_dtype) {
  SATIN_CHECK(codes.dim() == 2 && codes.scalar_type() == at::kByte, "codes ", codes.sizes(), " ", codes.scalar_type());
  const int64_t num_rows = codes.size(0), num_columns = codes.size(1);
  SATIN_CHECK(scale.dim() == 2 && scale.size(0) == num_rows && scale.size(1) > 0, "scales ", scale.sizes());
  SATIN_CHECK(!zero.defined() || (zero.sizes() == scale.sizes() && zero.scalar_type() == at::kInt), "zeros");
  SATIN_CHECK(scale_dtype == at::kBFloat16 || scale_dtype == at::kHalf, scale_dtype);
  SATIN_CHECK(step == 1 || (step == 2 && bits <= 2 && !zero.defined()), "step ", step, " of ", bits, " bits");
  const int64_t groups = scale.size(1);
  SATIN_CHECK(num_columns % groups == 0, groups, " groups of ", num_columns, " columns");

  PackedWeight packed;
  packed.shape = {num_rows, num_columns, bits, groups == 1 ? (num_columns + 31) / 32 * 32 : num_columns / groups};
  packed.step = step;
  packed.zero = constant_zero;
  packed.dequant_dtype = dequant_dtype;
  kernels::check(packed.shape);
  const at::TensorOptions options = codes.options();
  packed.words = at::empty({packed.shape.num_words()}, options.dtype(at::kInt));
  if (codes.is_cuda()) {
    packed.scales = at::empty({2 * packed.shape.num_pairs()}, options.dtype(scale_dtype));
    if (zero.defined()) packed.zeros = at::empty({2 * packed.shape.num_pairs()}, options);
    pack_on_cuda(packed, codes.contiguous(), scale.to(at::kFloat).contiguous(),
                 zero.defined() ? zero.contiguous() : zero);
    return packed;
  }
  auto* words = reinterpret_cast<uint32_t*>(packed.words.mutable_data_ptr<int32_t>());
  const at::Tensor whole = codes.contiguous();
  at::parallel_for(0, packed.shape.row_bricks(), 1, [&](int64_t begin, int64_t end) {
    kernels::pack_codes(packed.shape, begin, end, whole.const_data_ptr<uint8_t>(), words);
  });
  packed.scales = in_pairs(scale.to(scale_dtype), packed.shape);
  if (zero.defined()) packed.zeros = in_pairs(zero.to(at::kByte), packed.shape);
  return packed;
}

PackedWeight pack_weight(const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& zero, int bits, int step,
                         at::ScalarType dequant_dtype) {
  SATIN_CHECK(codes.is_cpu(), codes.device());
  SATIN_CHECK(zero.sizes() == scale.sizes() && zero.scalar_type() == at::kInt, "zeros ", zero.sizes());
  const auto [least, most] = at::aminmax(zero);
  const int low = least.item<int>(), high = most.item<int>();
  SATIN_CHECK(low >= 0 && high <= 255, "zeros from ", low, " to ", high);
  return pack_codes(codes, scale, low == high ? at::Tensor() : zero, low, bits, step, scale.scalar_type(),
                    dequant_dtype);
}

std::optional<PackedWeight> join_rows(const std::vector<PackedWeight*>& parts) {
  PackedWeight joined = *parts.front();
  const auto all = [&](const auto& holds) {
    return std::all_of(parts.begin(), parts.end(), [&](const PackedWeight* part) { return holds(*part); });
  };
  const bool alike = all([&](const PackedWeight& part) {
    return part.shape.num_columns == joined.shape.num_columns && part.shape.bits == joined.shape.bits &&
           part.shape.group_size == joined.shape.group_size && part.step == joined.step &&
           part.dequant_dtype == joined.dequant_dtype && part.scales.scalar_type() == joined.scales.scalar_type() &&
           part.zeros.defined() == joined.zeros.defined() && (part.zeros.defined() || part.zero == joined.zero) &&
           part.words.device() == joined.words.device() &&
           (&part == parts.back() || part.shape.num_rows % kBrickRows == 0);
  });
  if (!alike) return std::nullopt;
  joined.shape.num_rows = 0;
  for (const PackedWeight* part : parts) joined.shape.num_rows += part->shape.num_rows;
  for (at::Tensor PackedWeight::*const field : {&PackedWeight::words, &PackedWeight::scales, &PackedWeight::zeros}) {
    if (!(joined.*field).defined()) continue;
    std::vector<at::Tensor> each;
    for (const PackedWeight* part : parts) each.push_back(part->*field);
    joined.*field = at::cat(each);
    int64_t first = 0;
    for (PackedWeight* part : parts) {
      const int64_t size = (part->*field).numel();
      part->*field = (joined.*field).narrow(0, first, size);
      first += size;
    }
  }
  return joined;
}

at::Tensor dequantize_rows(const PackedWeight& weight, const at::Tensor& indices, at::ScalarType dtype) {
  const kernels::PackedShape& shape = weight.shape;
  if (weight.words.is_cuda()) return rows_of_cuda(weight, 0, indices.contiguous(), indices.numel(), dtype);
  const int64_t num = indices.numel(), groups = shape.num_groups();
  const at::ScalarType arithmetic =
      dtype == at::kDouble && weight.dequant_dtype == at::kFloat ? at::kDouble : at::kFloat;
  at::Tensor level = codes_of_rows(weight, indices).mul_(weight.step);
  if (groups == 1) {
    level = level.unsqueeze(1);
  } else {
    level = level.view({num, groups, shape.group_size});
  }
  level = weight.zeros.defined() ? level - of_rows(weight.zeros, shape, indices).to(at::kInt).unsqueeze(2)
                                 : level - weight.zero;
  const at::Tensor product = of_rows(weight.scales, shape, indices).to(arithmetic).unsqueeze(2) * level.to(arithmetic);
  return product.view({num, shape.num_columns}).to(weight.dequant_dtype).to(dtype);
}

at::Tensor dequantize_rows(const PackedWeight& weight, int64_t first, int64_t last, at::ScalarType dtype) {
  const kernels::PackedShape& shape = weight.shape;
  SATIN_CHECK(first % kBrickRows == 0 && first < last && last <= shape.num_rows, "rows ", first, " to ", last);
  if (weight.words.is_cuda()) return rows_of_cuda(weight, first, {}, last - first, dtype);
  const int64_t first_brick = first / kBrickRows, bricks = (last - first + kBrickRows - 1) / kBrickRows;
  // Whole bricks: of the last one perhaps more rows than asked for.
  const int64_t num_rows = std::min(bricks * kBrickRows, shape.num_rows - first);
  at::Tensor out = at::empty({num_rows, shape.num_columns}, at::kFloat);
  over_rows({bricks, kBrickRows * shape.num_columns}, [&](int64_t begin, int64_t end) {
    kernels::packed_dequantize_cpu(weight.matrix(), weight.rounding(), first_brick + begin, first_brick + end,
                                   out.mutable_data_ptr<float>() + begin * kBrickRows * shape.num_columns);
  });
  return out.narrow(0, 0, last - first).to(dtype);
}

}  // namespace satin::ops
