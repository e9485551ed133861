#include "ops/step_ends.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "ops/decode_kernels.h"
#include "ops/device.h"

namespace satin::ops {

at::Tensor begin_step(const PackedWeight& embedding, const at::Tensor& tokens, at::Tensor& positions,
                      at::ScalarType dtype) {
  const at::Device device = embedding.words.device();
  for (const at::Tensor* each : {&tokens, static_cast<const at::Tensor*>(&positions)})
    SATIN_CHECK(
        each->dim() == 1 && each->scalar_type() == at::kLong && each->device() == device && each->is_contiguous(),
        each->sizes(), " ", each->scalar_type(), " on ", each->device());
  SATIN_CHECK(tokens.sizes() == positions.sizes(), tokens.sizes(), " tokens, ", positions.sizes(), " positions");
  if (device.is_cuda() && dtype != at::kDouble) {
    const at::Tensor x =
        at::empty({tokens.size(0), embedding.shape.num_columns}, embedding.scales.options().dtype(at::kFloat));
    packed_dequantize(embedding, 0, tokens, x, dtype, positions);
    return x;
  }
  positions.add_(1);
  return dequantize_rows(embedding, tokens, dtype).to(dtype == at::kDouble ? at::kDouble : at::kFloat);
}

at::Tensor most_likely(const at::Tensor& logits) {
  SATIN_CHECK(logits.dim() == 2 && logits.size(1) > 0, "logits ", logits.sizes());
  const bool by_kernel = logits.is_cuda() && compute_capability(logits.device()) == 90 &&
                         logits.scalar_type() == at::kFloat && logits.stride(1) == 1;
  return by_kernel ? most_likely_on_cuda(logits) : logits.argmax(-1);
}

}  // namespace satin::ops
