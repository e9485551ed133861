// A low-bit weight as its codes, in the layout that matrix products read (kernels/packed_weight.h), for inference: no
// gradients, and not in the dispatcher.
//
//   weight [N, K] = dequant_dtype(scale * (step * code - zero))
//
// Errors   InternalError for shapes, dtypes or devices that do not agree.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "kernels/packed_matmul.h"

namespace satin::ops {

/// kNone of what is neither bfloat16 nor half.
kernels::Rounding rounding_to(at::ScalarType dtype);

struct PackedWeight {
  kernels::PackedShape shape{};
  at::Tensor words;   ///< [num_words] int32
  at::Tensor scales;  ///< [2 num_pairs] bfloat16 | half
  at::Tensor zeros;   ///< [2 num_pairs] uint8; undefined: `zero` everywhere
  int step = 1, zero = 0;
  at::ScalarType dequant_dtype =
      at::kBFloat16;  ///< what the weight is rounded to: bfloat16, half, or float (not at all)

  PackedWeight to(at::Device device) const;
  int64_t bytes() const;
  kernels::PackedMatrix matrix() const;
  kernels::Rounding rounding() const { return rounding_to(dequant_dtype); }
};

/// codes [N, K] uint8 below 2^bits, scale [N, G] bfloat16 | half, zero [N, G] int32 of 0 ... 255, all on the CPU; G of
/// group_size columns each, or 1 for a whole row. Rows are packed by torch's threads.
PackedWeight pack_weight(const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& zero, int bits, int step,
                         at::ScalarType dequant_dtype);

/// The same from what fake_quant_codes gives, on the codes' device, without waiting for it: scale [N, G] float, which
/// `scale_dtype` holds; zero [N, G] int32 of 0 ... 255, or undefined: constant_zero everywhere.
PackedWeight pack_codes(const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& zero, int constant_zero,
                        int bits, int step, at::ScalarType scale_dtype, at::ScalarType dequant_dtype);

/// One weight of their rows, one after the other, where the layout allows it (the same columns, bits, grid and dtypes;
/// whole bricks of rows but for the last). They become views of its memory. None: they stay as they are.
std::optional<PackedWeight> join_rows(const std::vector<PackedWeight*>& parts);

/// Rows of the weight, indices [n] int64 on its device -> [n, K] in `dtype`: rounded to dequant_dtype, then converted.
at::Tensor dequantize_rows(const PackedWeight& weight, const at::Tensor& indices, at::ScalarType dtype);
/// The same of rows first ... last - 1; `first` a multiple of 16.
at::Tensor dequantize_rows(const PackedWeight& weight, int64_t first, int64_t last, at::ScalarType dtype);

}  // namespace satin::ops
