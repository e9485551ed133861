#include "ops/cache_rows.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace satin::ops {
namespace {

/// int8 [..., D] -> [..., D / 2].
at::Tensor two_to_a_byte(const at::Tensor& levels) {
  const at::Tensor pairs = levels.unflatten(-1, {levels.size(-1) / 2, 2});
  return pairs.select(-1, 0).bitwise_and(15).bitwise_or_(pairs.select(-1, 1).bitwise_left_shift(4));
}
at::Tensor one_to_a_byte(const at::Tensor& rows) {  // shifts to the right keep the sign
  return at::stack({rows.bitwise_left_shift(4).bitwise_right_shift_(4), rows.bitwise_right_shift(4)}, -1).flatten(-2);
}

}  // namespace

int64_t CacheRows::bytes() const {
  return static_cast<int64_t>(rows.nbytes() + (scales.defined() ? scales.nbytes() : 0));
}

CacheRows cache_rows(const at::Tensor& x, std::optional<ActivationFormat> format) {
  if (!format) return {x.detach(), {}};
  SATIN_CHECK(*format != ActivationFormat::kFloat8, "keys and values: expected int8 or int4, found float8");
  if (*format == ActivationFormat::kInt4 && x.size(-1) % 2 != 0)
    throw UserError(cat("keys and values as int4: expected an even number of features a head (two to a byte), found ",
                        x.size(-1), "; use int8 or none"));
  ActCodes held = act_quant_codes(x.detach(), *format);
  return {*format == ActivationFormat::kInt4 ? two_to_a_byte(held.codes) : held.codes, held.scale};
}

at::Tensor numbers_of(const CacheRows& held, std::optional<ActivationFormat> format, at::ScalarType dtype) {
  SATIN_CHECK(held.scales.defined() == format.has_value(), "a cache of ", format ? "integers" : "numbers",
              " was expected, one of ", held.rows.scalar_type(),
              " found: keys and values were stored as another format");
  if (!format) return held.rows;
  const at::Tensor levels = *format == ActivationFormat::kInt4 ? one_to_a_byte(held.rows) : held.rows;
  at::Tensor numbers = at::empty(levels.sizes(), levels.options().dtype(dtype));
  at::mul_out(numbers, levels, held.scales.unsqueeze(-1));  // in the scale's dtype, then rounded once
  return numbers;
}

}  // namespace satin::ops
