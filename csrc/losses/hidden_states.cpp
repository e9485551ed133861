// Shapes: N tokens, H hidden.
#include "losses/hidden_states.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace satin::losses {
namespace {

struct Directions {
  at::Tensor unit;             ///< [N, H]
  at::Tensor inverse_lengths;  ///< [N, 1], 0 of a vector of length 0
};
Directions directions(const at::Tensor& x) {
  const at::Tensor lengths = x.norm(2, {1}, /*keepdim=*/true);
  const at::Tensor inverse = lengths.reciprocal().masked_fill_(lengths == 0, 0);
  return {x * inverse, inverse};
}

}  // namespace

HiddenStateLoss hidden_state_loss(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& weights) {
  const at::NoGradGuard no_grad;
  SATIN_CHECK(student.dim() == 2 && student.sizes() == teacher.sizes(), "student ", student.sizes(), ", teacher ",
              teacher.sizes());
  SATIN_CHECK_EQ(weights.size(0), student.size(0));
  const at::Tensor masked = (weights == 0).unsqueeze(1);
  const auto [u, inverse] = directions(student.masked_fill(masked, 0));
  const at::Tensor v = directions(teacher.to(student.scalar_type()).masked_fill(masked, 0)).unit;
  const at::Tensor w = weights.unsqueeze(1);
  return {((u - v).square_() * w).sum(), ((u * v).sum(1, /*keepdim=*/true) * u).sub_(v).mul_(w * inverse * 2)};
}

}  // namespace satin::losses
