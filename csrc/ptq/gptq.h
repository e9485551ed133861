// GPTQ: columns are rounded one after the other, and what each rounding got wrong is made up for by those after it.
// Source: Frantar et al. 2023 (arXiv 2210.17323), algorithm 1, with its act-order.
#pragma once
#include "ptq/result.h"

namespace satin::ptq {

struct GptqOptions {
  double damping = 0.01;  ///< added to the diagonal of the moments, as a share of its mean
  bool act_order = true;  ///< columns by falling diagonal, all scales from the weight as it was; otherwise in their own
                          ///< order, the scales of a group from its weights when it is reached
};

/// weight [N, K], moments [K, K] = E[x x^T]. Scales start as scheme.init says, weighted_mse with the moments' diagonal.
/// Any grid with learned scales, each column with the bits of its group. Inputs that are always 0 are rounded to
/// nearest. The factorisation is in fp64, the rest in the weight's dtype. Throws UserError when the moments are not
/// finite.
Rounded gptq(const at::Tensor& weight, const at::Tensor& moments, const quant::Scheme& scheme,
             const GptqOptions& options, const std::string& module);

/// The diagonal [K] of the inverse of `moments` [K, K], damped as gptq() damps them and with its errors; fp64.
at::Tensor inverse_diagonal(const at::Tensor& moments, double damping, const std::string& module);

}  // namespace satin::ptq
