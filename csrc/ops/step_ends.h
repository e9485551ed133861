// What a step of text, a token of each of some sequences, begins and ends with, each in one launch. For inference.
//
// Errors   InternalError for shapes, dtypes or devices that do not agree.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/packed_weight.h"

namespace satin::ops {

/// Rows of the embedding, tokens [B] int64 -> [B, K] float (double of double), rounded to dequant_dtype, then to
/// `dtype`; positions [B] int64 are each one more afterwards.
at::Tensor begin_step(const PackedWeight& embedding, const at::Tensor& tokens, at::Tensor& positions,
                      at::ScalarType dtype);

/// The first place of the largest of each row: logits [B, V] -> [B] int64. A NaN is larger than all numbers.
at::Tensor most_likely(const at::Tensor& logits);

}  // namespace satin::ops
