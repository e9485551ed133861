// A build without CUDA registers no CUDA kernels: the dispatcher then names the operator and the missing backend.
#include "core/error.h"
#include "ops/a8_kernels.h"
#include "ops/adamw.h"
#include "ops/add_rows.h"
#include "ops/anchors.h"
#include "ops/decode_kernels.h"

namespace satin::ops {

void anchor_cuda() {}
void anchor_act_quant_cuda() {}
void anchor_layers_cuda() {}
void anchor_logit_losses_cuda() {}

void adamw_on_cuda(const AdamWBatch&) { throw InternalError("adamw: a build without CUDA"); }
void add_rows_on_cuda(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  throw InternalError("add_rows: a build without CUDA");
}
at::Tensor packed_decode(const at::Tensor&, const PackedWeight&, const at::Tensor&, kernels::DecodeTile) {
  throw InternalError("packed_decode: a build without CUDA");
}
at::Tensor packed_decode(const DecodeRows&) { throw InternalError("packed_decode: a build without CUDA"); }
void packed_dequantize(const PackedWeight&, int64_t, const at::Tensor&, at::Tensor, at::ScalarType, at::Tensor) {
  throw InternalError("packed_dequantize: a build without CUDA");
}
at::Tensor most_likely_on_cuda(const at::Tensor&) { throw InternalError("most_likely: a build without CUDA"); }
void cached_attention_cuda(const kernels::CachedAttention&, at::ScalarType, at::Device) {
  throw InternalError("cached_attention: a build without CUDA");
}
A8Codes a8_codes(const at::Tensor&, bool) { throw InternalError("a8_codes: a build without CUDA"); }
at::Tensor packed_a8(const A8Codes&, const PackedWeight&, const at::Tensor&, at::ScalarType) {
  throw InternalError("packed_a8: a build without CUDA");
}
at::Tensor packed_a16(const at::Tensor&, const PackedWeight&, const at::Tensor&, kernels::A16Tile) {
  throw InternalError("packed_a16: a build without CUDA");
}
void pack_on_cuda(PackedWeight&, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  throw InternalError("pack_on_cuda: a build without CUDA");
}

}  // namespace satin::ops
