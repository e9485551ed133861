#include "quant/column_limits.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>
#include <set>

#include "core/error.h"

namespace satin::quant {
namespace {

std::optional<at::Tensor> optional_tensor(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

/// A number a group, [G].
struct Groups {
  at::Tensor lowest, highest;     ///< levels (symmetric) or codes; infinite where the group has all of the grid
  at::Tensor highest_zero;        ///< of asymmetric groups
  at::Tensor multiplier, to_own;  ///< LSQ's m of the group's bits, and over that of the grid's
};

Groups groups_of(const Scheme& scheme, const ops::FakeQuantGrid& grid, const at::TensorOptions& options) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<double> lowest, highest, highest_zero, multiplier, to_own;
  for (const int bits : scheme.column_bits) {
    ops::FakeQuantGrid own = grid;
    own.bits = bits;
    const bool whole = bits == grid.bits, signs = !scheme.has_zero_point();
    const double count = std::exp2(bits);
    lowest.push_back(whole ? -kInfinity : signs ? -count / 2 : 0);
    highest.push_back(whole ? kInfinity : signs ? count / 2 - 1 : count - 1);
    highest_zero.push_back(count - 1);
    multiplier.push_back(kernels::gradient_multiplier(own));
    to_own.push_back(multiplier.back() / kernels::gradient_multiplier(grid));
  }
  const auto tensor = [&](const std::vector<double>& values) {
    return at::tensor(at::ArrayRef<double>(values), at::kDouble).to(options);
  };
  return {tensor(lowest), tensor(highest), tensor(highest_zero), tensor(multiplier), tensor(to_own)};
}

/// `value`, attached to `learned`: gradients reach that times `factor`.
at::Tensor attached(const at::Tensor& value, const at::Tensor& learned, const at::Tensor& factor) {
  if (!learned.requires_grad() || !at::GradMode::is_enabled()) return value.detach();
  const at::Tensor zero = learned - learned.detach();
  zero.register_hook([factor](const at::Tensor& gradient) { return gradient * factor; });
  return value.detach() + zero;
}

}  // namespace

LimitedWeight limited(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme) {
  if (!scheme.has_narrow_columns()) return {weight, state, {}};
  const int64_t num_rows = weight.size(0), num_groups = state.scale.size(1);
  SATIN_CHECK_EQ(static_cast<int64_t>(scheme.column_bits.size()), num_groups, "groups with bits of their own");
  const bool asymmetric = scheme.has_zero_point();
  const ops::FakeQuantGrid grid = kernel_grid(scheme, weight.size(1));
  const Groups of = groups_of(scheme, grid, state.scale.options().requires_grad(false));
  const at::Tensor stored = ops::effective_scale(state.scale.detach(), grid);
  LimitedWeight found;
  found.state.scale = attached(state.scale, state.scale, of.to_own);
  at::Tensor zero;
  if (asymmetric) {
    const at::Tensor clamped = at::minimum(state.zero_point.detach().clamp_min(0), of.highest_zero);
    found.state.zero_point = attached(clamped, state.zero_point, of.to_own);
    zero = attached(clamped.round(), state.zero_point, of.multiplier).unsqueeze(2);
  }
  const at::Tensor grouped = weight.view({num_rows, num_groups, -1}).to(stored.scalar_type());
  const at::Tensor lowest = of.lowest.unsqueeze(1), highest = of.highest.unsqueeze(1);
  // As the kernels say who is inside: symmetric grids by the quotient, asymmetric ones by the rounded code.
  at::Tensor position = grouped.detach() / stored.unsqueeze(2);
  if (asymmetric) position.round_().add_(zero.detach());
  const at::Tensor inside = position.lt(lowest).logical_or_(position.gt(highest)).logical_not_();  // NaN stays NaN
  at::Tensor end = at::minimum(at::maximum(position, lowest), highest);
  if (asymmetric) end = end - zero;
  end = end * attached(stored, state.scale, of.multiplier).unsqueeze(2);
  found.weight = at::where(inside, grouped, end).view(weight.sizes()).to(weight.scalar_type());
  found.inside = inside.view(weight.sizes());
  return found;
}

ops::FakeQuantGradients through_limits(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme,
                                       const ops::FakeQuantGradients& gradients) {
  if (!scheme.has_narrow_columns()) return gradients;
  const at::AutoGradMode enable_grad(true);
  const auto leaf = [](const at::Tensor& value) { return value.detach().requires_grad_(); };
  std::vector<at::Tensor> taken{leaf(weight), leaf(state.scale)};
  if (state.zero_point.defined()) taken.push_back(leaf(state.zero_point));
  const LimitedWeight now = limited(taken[0], {taken[1], taken.size() > 2 ? taken[2] : at::Tensor()}, scheme);
  std::vector<at::Tensor> given{now.weight, now.state.scale}, arrived{gradients.weight, gradients.scale};
  if (state.zero_point.defined()) {
    given.push_back(now.state.zero_point);
    arrived.push_back(gradients.zero_point);
  }
  const std::vector<at::Tensor> found = torch::autograd::grad(given, taken, arrived);
  return {found[0], found[1], found.size() > 2 ? found[2] : at::Tensor()};
}

at::Tensor fake_quantized(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme,
                          at::ScalarType dtype) {
  const LimitedWeight now = limited(weight, state, scheme);
  return ops::fake_quant(now.weight, now.state.scale, optional_tensor(now.state.zero_point),
                         kernel_grid(scheme, weight.size(1)), dtype);
}

ops::FakeQuantCodes codes_of(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme) {
  const at::NoGradGuard no_grad;
  const LimitedWeight now = limited(weight, state, scheme);
  return ops::fake_quant_codes(now.weight, now.state.scale, optional_tensor(now.state.zero_point),
                               kernel_grid(scheme, weight.size(1)));
}

QuantizerState initial_state_of_columns(const at::Tensor& weight, const Scheme& scheme, const at::Tensor& importance) {
  const at::NoGradGuard no_grad;
  const auto num_groups = static_cast<int64_t>(scheme.column_bits.size());
  const at::Tensor grouped = weight.detach().view({weight.size(0), num_groups, -1});
  QuantizerState found;
  for (const int bits : std::set<int>(scheme.column_bits.begin(), scheme.column_bits.end())) {
    std::vector<int64_t> which;
    for (int64_t group = 0; group < num_groups; ++group)
      if (scheme.column_bits[static_cast<size_t>(group)] == bits) which.push_back(group);
    const at::Tensor index = at::tensor(at::ArrayRef<int64_t>(which), at::kLong).to(weight.device());
    Scheme own = scheme.stored();
    own.bits = bits;
    const QuantizerState part = initial_state(
        grouped.index_select(1, index).flatten(1), own,
        importance.defined() ? importance.view({num_groups, -1}).index_select(0, index).flatten() : at::Tensor());
    const auto put = [&](at::Tensor& state, const at::Tensor& values) {
      if (!values.defined()) return;
      if (!state.defined()) state = at::empty({weight.size(0), num_groups}, values.options());
      state.index_copy_(1, index, values);
    };
    put(found.scale, part.scale);
    put(found.zero_point, part.zero_point);
  }
  return found;
}

}  // namespace satin::quant
