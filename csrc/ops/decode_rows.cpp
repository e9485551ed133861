#include "ops/decode_rows.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "ops/decode_kernels.h"
#include "ops/layers.h"
#include "ops/packed_linear.h"

namespace satin::ops {

bool has_decode_kernel(const DecodeRows& call) {
  const kernels::PackedShape& shape = call.weight.shape;
  const int64_t most = call.dtype == at::kHalf ? kernels::kMostHalfRows : kernels::kMostDecodeRows;
  if (!call.x.is_cuda() || call.x.size(0) == 0 || call.x.size(0) > most) return false;
  if (call.gated && shape.num_rows % (2 * kernels::kBrickRows) != 0) return false;
  return choose_packed_path(problem_of(call.x, call.weight, call.dtype)).path == PackedPath::kPacked;
}

at::Tensor decode_rows(const DecodeRows& call) {
  const kernels::PackedShape& shape = call.weight.shape;
  const at::ScalarType wide = call.dtype == at::kDouble ? at::kDouble : at::kFloat;
  const bool normed = call.norm_weight.defined();
  SATIN_CHECK(call.x.dim() == 2 && call.x.size(1) == shape.num_columns, "x ", call.x.sizes(), " of ", shape.num_columns,
              " columns");
  SATIN_CHECK(call.x.scalar_type() == (normed ? wide : call.dtype), "x ", call.x.scalar_type());
  SATIN_CHECK(!normed || (call.norm_weight.scalar_type() == wide && call.norm_weight.numel() == shape.num_columns),
              "norm_weight ", call.norm_weight.sizes());
  SATIN_CHECK(!call.gated || (!call.wide && shape.num_rows % 2 == 0), "a gate of ", shape.num_rows, " rows");
  SATIN_CHECK(
      !call.residual.defined() || (call.wide && call.residual.scalar_type() == wide && call.residual.dim() == 2 &&
                                   call.residual.size(0) == call.x.size(0) && call.residual.size(1) == shape.num_rows),
      "residual");
  const bool by_kernel = has_decode_kernel(call);
  if (by_kernel && (!normed || call.x.size(0) <= kernels::kMostHalfRows)) return packed_decode(call);
  const at::Tensor x = normed ? rms_norm(call.x, {}, call.norm_weight, call.norm_eps, call.dtype).y : call.x;
  if (by_kernel) {
    DecodeRows of_normed = call;
    of_normed.x = x;
    of_normed.norm_weight.reset();
    return packed_decode(of_normed);
  }
  const at::Tensor y = packed_linear(x, call.weight, call.bias.defined() ? std::optional(call.bias) : std::nullopt);
  if (call.gated)
    return swiglu(y.narrow(-1, 0, shape.num_rows / 2), y.narrow(-1, shape.num_rows / 2, shape.num_rows / 2));
  if (!call.wide) return y;
  return call.residual.defined() ? call.residual + y : y.to(wide);
}

}  // namespace satin::ops
