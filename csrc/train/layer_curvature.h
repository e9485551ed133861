// What rounding costs by the loss's curvature: S = 1/2 sum c (w' - w)^2 over the weights w of a layer, w' rounded.
//   fisher   c = the mean over sequences of (df/dw)^2, the empirical Fisher information's diagonal
//   hessian  c = tr(H) / n of each linear, H of the mean of f by its n weights, traces by Hutchinson's estimator
// f is a sequence's mean cross-entropy in full precision. Source: Dong et al. 2020 (HAWQ-V2) for the traces.
#pragma once
#include <map>
#include <vector>

#include "models/decoder.h"
#include "quant/registry.h"

namespace satin::train {

/// By quantized linear inside a decoder's layer: [out, in], or a scalar for all of it.
using Curvature = std::map<const quant::QuantLinear*, at::Tensor>;

/// tokens [S, T] int64; one backward pass a sequence.
Curvature fisher_curvature(models::Decoder& decoder, const quant::Registry& registry, const at::Tensor& tokens);
/// `probes` draws of signs for all weights at once, each two backward passes over the sequences, `batch_size` at a
/// time, in fp32 (fp64). A trace that comes out negative counts as 0.
Curvature hessian_curvature(models::Decoder& decoder, const quant::Registry& registry, const at::Tensor& tokens,
                            int64_t batch_size, int64_t probes, uint64_t seed);

/// S of a layer as its linears are quantized at the moment.
double rounding_cost(const Curvature& curvature, const std::vector<const quant::QuantizedModule*>& layer);

}  // namespace satin::train
