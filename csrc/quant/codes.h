// A quantized weight as integers: what packers write and readers rebuild, bit for bit the training forward's weight.
//
//   level  = step * code - zero_point          step 2 for SEQ (levels -3, -1, 1, 3; zero_point 3), binary and OneBit
//                                             (-1, 1; zero_point 1), 1 otherwise
//   weight = dequant_dtype(scale * level)      the product in fp32, where it is exact for 16-bit scales
#pragma once
#include <ATen/core/Tensor.h>

#include "quant/quant_linear.h"
#include "quant/scheme.h"

namespace satin::quant {

struct QuantizedWeight {
  Scheme scheme;
  at::Tensor codes;  ///< [N, K] uint8, 0 .. 2^bits - 1 (three levels: 0 .. 2; fewer in narrow columns)
  at::Tensor scale;  ///< [N, G] in the storage dtype (a scale a tensor: in every row): a, a/4 (SEQ) or 2a/3 (ternary)
                     ///< of the learned scale a
  at::Tensor zero_point;  ///< [N, G] int32; symmetric integer grids 2^(bits-1), SEQ 3, others 1
};

/// 2 for SEQ and binary, else 1.
int64_t code_step(const Scheme& scheme);
/// bfloat16, float16, or `exact` for Storage::kExact.
at::ScalarType storage_dtype(Storage storage, at::ScalarType exact);

/// The layer's weight with its present scales and zero points. Throws UserError when it is not finite.
QuantizedWeight quantize_weight(const QuantLinear& linear);
/// The same from tensors: a master weight [N, K] and its stored parameters. Throws UserError when one is missing or of
/// another shape.
QuantizedWeight quantize_weight(const Scheme& scheme, const at::Tensor& weight, const QuantizerParameters& parameters,
                                const std::string& module);
/// Round-to-nearest: a weight [N, K] with the scheme's initial scales (see initial_state).
/// Throws UserError as check_fits, and when the weight is not finite.
QuantizedWeight round_to_nearest(const at::Tensor& weight, const Scheme& scheme, const std::string& module = "weight");

/// Rows first ... last - 1 of it, as views: what works row by row need not hold a large weight's values at once.
QuantizedWeight rows(const QuantizedWeight& weight, int64_t first, int64_t last);
/// How many rows of `num_columns` make a piece that fits a processor's caches, at least 1.
int64_t rows_at_once(int64_t num_columns);

/// The integers that multiply the scales, [N, K] int32.
at::Tensor levels(const QuantizedWeight& weight);

/// The same around `middle`, [N, K] uint8: level + middle, which must be 0 ... 255 for each.
at::Tensor codes_around(const QuantizedWeight& weight, int middle);

/// [N, K] in the scheme's dequant_dtype (Storage::kExact: the scale's dtype). Equals QuantLinear::weight before its
/// cast.
at::Tensor dequantize(const QuantizedWeight& weight);

}  // namespace satin::quant
