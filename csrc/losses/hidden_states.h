// Hidden-state distillation: how far the student's hidden states point away from the teacher's.
//   L = sum_n weight_n | u_n - v_n |^2,   u = a / |a| of the student, v = b / |b| of the teacher, of each token
//   dL/da_n = 2 weight_n / |a_n| ((u_n . v_n) u_n - v_n)
// A vector of length 0 has no direction: u (v) is 0 there, and so is the gradient. Source: Xu et al. 2024, OneBit
// (arXiv 2402.11295), section 3.4, L_MSE with its L2 normalisation. The paper sums over tokens and layers; here weights
// make it a mean over tokens, and the caller one over layers, so that neither length nor depth changes what a weight
// means.
#pragma once
#include <ATen/core/Tensor.h>

namespace satin::losses {

struct HiddenStateLoss {
  at::Tensor value;  ///< 0-dim
  at::Tensor grad;   ///< [N, H] of the value
};

/// student, teacher [N, H] fp32 (fp64); weights [N] in the student's dtype, 0 where masked (NaN there stays there).
/// Does not wait for the device. Throws InternalError for shapes that do not agree.
HiddenStateLoss hidden_state_loss(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& weights);

}  // namespace satin::losses
