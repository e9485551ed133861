#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "kernels/packed_matmul.h"
#include "kernels/step_ends.h"
#include "ops/decode_kernels.h"
#include "ops/decode_tiles.h"

namespace satin::ops {

namespace {

kernels::Half half_of(at::ScalarType dtype) {
  return dtype == at::kHalf ? kernels::Half::kFloat16 : kernels::Half::kBFloat16;
}

const void* data(const at::Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; }

}  // namespace

at::Tensor packed_decode(const at::Tensor& x, const PackedWeight& weight, const at::Tensor& bias,
                         kernels::DecodeTile tile) {
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor y = at::empty({x.size(0), weight.shape.num_rows}, x.options());
  const auto row_bytes = [](const at::Tensor& t) { return static_cast<int64_t>(t.itemsize()) * t.size(1); };
  const auto tile_for = [&](int64_t num_x_rows) {
    return tile == kernels::DecodeTile{} ? tuned_tile(x.device(), weight.shape, num_x_rows, false) : tile;
  };
  const int64_t step = x.scalar_type() == at::kHalf ? kernels::kMostHalfRows : kernels::kMostDecodeRows;
  for (int64_t first = 0; first < x.size(0); first += step)
    kernels::packed_decode_cuda({.w = weight.matrix(),
                                 .dtype = half_of(x.scalar_type()),
                                 .num_rows = static_cast<int>(std::min(step, x.size(0) - first)),
                                 .x = static_cast<const char*>(x.const_data_ptr()) + first * row_bytes(x),
                                 .y = static_cast<char*>(y.mutable_data_ptr()) + first * row_bytes(y),
                                 .bias = data(bias),
                                 .residual = nullptr,
                                 .tile = tile_for(std::min(step, x.size(0) - first))},
                                c10::cuda::getCurrentCUDAStream());
  return y;
}

at::Tensor packed_decode(const DecodeRows& call) {
  const c10::cuda::CUDAGuard guard(call.x.device());
  const at::Tensor x = call.x.contiguous(), bias = call.bias.defined() ? call.bias.contiguous() : call.bias,
                   residual = call.residual.defined() ? call.residual.contiguous() : call.residual,
                   norm_weight = call.norm_weight.defined() ? call.norm_weight.contiguous() : call.norm_weight;
  at::Tensor y = at::empty({x.size(0), call.weight.shape.num_rows / (call.gated ? 2 : 1)},
                           x.options().dtype(call.wide ? at::kFloat : call.dtype));
  kernels::packed_decode_cuda({.w = call.weight.matrix(),
                               .dtype = half_of(call.dtype),
                               .num_rows = static_cast<int>(x.size(0)),
                               .x = data(x),
                               .y = y.mutable_data_ptr(),
                               .bias = data(bias),
                               .residual = data(residual),
                               .norm_weight = static_cast<const float*>(data(norm_weight)),
                               .norm_eps = static_cast<float>(call.norm_eps),
                               .gated = call.gated,
                               .wide = call.wide,
                               .tile = tuned_tile(x.device(), call.weight.shape, x.size(0), call.gated)},
                              c10::cuda::getCurrentCUDAStream());
  return y;
}

void packed_dequantize(const PackedWeight& weight, int64_t first, const at::Tensor& indices, at::Tensor out,
                       at::ScalarType dtype, at::Tensor counts) {
  const c10::cuda::CUDAGuard guard(out.device());
  kernels::packed_dequantize_cuda({.w = weight.matrix(),
                                   .rounding = weight.rounding(),
                                   .first_row = first,
                                   .num_rows = out.size(0),
                                   .indices = indices.defined() ? indices.const_data_ptr<int64_t>() : nullptr,
                                   .wide = out.scalar_type() == at::kFloat,
                                   .out_rounding = rounding_to(dtype),
                                   .out = out.mutable_data_ptr(),
                                   .counts = counts.defined() ? counts.mutable_data_ptr<int64_t>() : nullptr},
                                  c10::cuda::getCurrentCUDAStream());
}

at::Tensor most_likely_on_cuda(const at::Tensor& logits) {
  const c10::cuda::CUDAGuard guard(logits.device());
  at::Tensor ids = at::empty({logits.size(0)}, logits.options().dtype(at::kLong));
  kernels::most_likely_cuda({.num_rows = logits.size(0),
                             .num_columns = logits.size(1),
                             .logits = logits.const_data_ptr<float>(),
                             .stride = logits.stride(0),
                             .ids = ids.mutable_data_ptr<int64_t>()},
                            c10::cuda::getCurrentCUDAStream());
  return ids;
}

void cached_attention_cuda(const kernels::CachedAttention& call, at::ScalarType dtype, at::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  kernels::cached_attention_cuda(call, half_of(dtype), c10::cuda::getCurrentCUDAStream());
}

}  // namespace satin::ops
