// Activation-aware scaling: inputs that are large on the text are divided by a factor which the weight's columns are
// multiplied with before rounding; the factor goes into what comes before (a norm's weight, or the rows of the layer
// that makes the input), so nothing is computed at run time. Source: Lin et al. 2024 (AWQ, arXiv 2306.00978), eq. 4 and
// 5; the error is that of each layer's output by second moments, where the paper measures modules.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "quant/quant_linear.h"

namespace satin::ptq {

/// Layers that read one tensor, and what makes it.
struct ScaledInput {
  std::vector<quant::QuantLinear*> readers;
  at::Tensor moments;              ///< [K, K] E[x x^T]
  std::vector<at::Tensor> makers;  ///< parameters whose dimension 0 is the inputs' [K, ...]: divided by the factor
};

/// Of one block: which of its linears (by the last part of the name) can be scaled. v_proj makes the input of o_proj
/// where every head has its own values. Bias goes with its weight.
std::vector<ScaledInput> scaled_inputs(const models::Decoder& decoder, int64_t block,
                                       const std::vector<quant::QuantLinear*>& linears,
                                       const std::map<const quant::QuantLinear*, at::Tensor>& moments);

/// The factor [K]: m^p for the best p of 0, 1/20, ... 1, m the root mean squares of the inputs, over the geometric mean
/// of its ends. Best: the least sum of |(Q(W f) / f - W) x|^2 over the readers.
at::Tensor best_factor(const ScaledInput& input);

/// Multiplies columns and divides makers. In full precision the block computes the same.
void apply_factor(const ScaledInput& input, const at::Tensor& factor);

}  // namespace satin::ptq
