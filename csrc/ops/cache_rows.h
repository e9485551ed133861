// Keys or values as a cache holds them: the numbers themselves, or int8 or int4 with a scale for each token and head,
// which take 1/2 or 1/4 of bfloat16's memory and 4 bytes for the scale.
//
// Shapes   x [..., D]; rows [..., D], of int4 [..., D / 2] (feature 2 i in the low half of byte i); scales [...].
// Dtypes   x float | bfloat16 | double; rows x's, of integers int8; scales float (double with a double x).
// Contract numbers_of(cache_rows(x)) has the bits of act_quant(x).
// Errors   UserError for int4 of an odd D; InternalError for rows of another format.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "ops/act_quant.h"

namespace satin::ops {

struct CacheRows {
  at::Tensor rows, scales;  ///< scales: undefined where rows are numbers

  int64_t bytes() const;
};

/// format: kInt8, kInt4, or the numbers themselves. Without gradients.
CacheRows cache_rows(const at::Tensor& x, std::optional<ActivationFormat> format);
/// dtype: of x.
at::Tensor numbers_of(const CacheRows& held, std::optional<ActivationFormat> format, at::ScalarType dtype);

}  // namespace satin::ops
