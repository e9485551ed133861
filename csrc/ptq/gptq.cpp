#include "ptq/gptq.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/log.h"
#include "quant/column_limits.h"

namespace satin::ptq {
namespace {

constexpr int64_t kBlockColumns = 128;  // whose compensation of later columns is one product

/// The upper Cholesky factor of (moments + damping)^-1, rows and columns in `order`.
at::Tensor inverse_factor(at::Tensor moments, const at::Tensor& order, double damping, const std::string& module) {
  const double mean = moments.diagonal().mean().item<double>();
  moments = moments.index_select(0, order);
  moments = moments.index_select(1, order);
  for (int attempt = 0; attempt < 4; ++attempt, damping *= 10) {
    at::Tensor damped = moments.clone();
    damped.diagonal().add_(damping * mean);
    const auto [lower, info] = at::linalg_cholesky_ex(damped);
    damped.reset();
    if (info.item<int>() == 0) return at::linalg_cholesky(at::cholesky_inverse(lower), /*upper=*/true);
    log_warning(cat(module, ": its inputs' second moments are singular with a damping of ", damping, "; trying ",
                    damping * 10));
  }
  throw UserError(cat(module,
                      ": GPTQ cannot factor its inputs' second moments; raise ptq.damping, or read more text "
                      "(quantization.calibration_sequences)"));
}

/// Moments in fp64 that have an inverse as far as inputs that are always 0 are concerned.
at::Tensor hessian_of(const at::Tensor& moments, const std::string& module) {
  if (!at::isfinite(moments).all().item<bool>())
    throw UserError(cat(module, ": its inputs on the calibration text are NaN or infinite: is the model damaged?"));
  at::Tensor hessian = moments.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  hessian.diagonal().masked_fill_(moments.diagonal() == 0, 1);
  return hessian;
}

/// One column [N, 1] with its group's state and bits, as the layer's forward rounds it.
at::Tensor round_column(const at::Tensor& column, const quant::QuantizerState& state, int64_t group,
                        const quant::Scheme& scheme) {
  const auto of_group = [&](const at::Tensor& values) {
    return values.defined() ? values.narrow(1, group, 1).contiguous() : values;
  };
  quant::Scheme of_column = scheme.of_groups(group, 1);
  of_column.group_size = -1;
  return quant::fake_quantized(column, {of_group(state.scale), of_group(state.zero_point)}, of_column,
                               column.scalar_type());
}

}  // namespace

Rounded gptq(const at::Tensor& weight, const at::Tensor& moments, const quant::Scheme& scheme,
             const GptqOptions& options, const std::string& module) {
  const at::NoGradGuard no_grad;
  const int64_t N = weight.size(0), K = weight.size(1);
  SATIN_CHECK(scheme.learned_scale() && moments.size(0) == K, module, ": GPTQ with ", quant::describe(scheme));
  at::Tensor hessian = hessian_of(moments, module);
  const at::Tensor importance = moments.diagonal().contiguous();
  at::Tensor w = weight.detach();

  const int64_t group_size = scheme.group_size <= 0 ? K : scheme.group_size;
  const bool fixed_scales = options.act_order || group_size == K;
  const at::Tensor order = options.act_order
                               ? at::argsort(hessian.diagonal(), /*stable=*/true, /*dim=*/0, /*descending=*/true)
                               : at::arange(K, at::TensorOptions().dtype(at::kLong).device(w.device()));
  const at::Tensor order_on_host = order.cpu();
  const int64_t* column_of = order_on_host.const_data_ptr<int64_t>();
  const at::Tensor factor = inverse_factor(std::move(hessian), order, options.damping, module).to(w.scalar_type());
  const at::Tensor steps = factor.diagonal().cpu().to(at::kDouble);

  const at::ScalarType state_dtype = nn::statistics_dtype(w.scalar_type());
  quant::QuantizerState state;
  if (fixed_scales) {
    state = quant::initial_state(w, scheme, importance);
  } else {
    state.scale = at::empty({N, K / group_size}, w.options().dtype(state_dtype));
    if (scheme.has_zero_point()) state.zero_point = at::empty_like(state.scale);
  }
  at::Tensor latent = at::empty_like(w);
  w = w.index_select(1, order);
  // Blocks are groups where scales wait for the weights of their group.
  const int64_t step = fixed_scales ? kBlockColumns : group_size;
  for (int64_t first = 0; first < K; first += step) {
    const int64_t count = std::min(step, K - first);
    if (!fixed_scales) {
      const int64_t group = first / group_size;
      const auto found = quant::initial_state(w.narrow(1, first, count).contiguous(), scheme.of_groups(group, 1),
                                              importance.narrow(0, first, count).contiguous());
      state.scale.select(1, group).copy_(found.scale.select(1, 0));
      if (state.zero_point.defined()) state.zero_point.select(1, group).copy_(found.zero_point.select(1, 0));
    }
    at::Tensor errors = at::empty({N, count}, w.options());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = first + i;
      const at::Tensor column = w.narrow(1, at, 1).contiguous();
      const at::Tensor rounded = round_column(column, state, column_of[at] / group_size, scheme);
      const at::Tensor error = (column - rounded) / steps[at].item<double>();
      errors.narrow(1, i, 1).copy_(error);
      latent.narrow(1, column_of[at], 1).copy_(column);
      if (const int64_t left = count - i - 1; left > 0)
        w.narrow(1, at + 1, left).addmm_(error, factor.narrow(0, at, 1).narrow(1, at + 1, left), 1, -1);
    }
    if (const int64_t left = K - first - count; left > 0)
      w.narrow(1, first + count, left)
          .addmm_(errors, factor.narrow(0, first, count).narrow(1, first + count, left), 1, -1);
  }
  return {latent, state};
}

at::Tensor inverse_diagonal(const at::Tensor& moments, double damping, const std::string& module) {
  const at::NoGradGuard no_grad;
  const at::Tensor order = at::arange(moments.size(0), moments.options().dtype(at::kLong));
  return inverse_factor(hessian_of(moments, module), order, damping, module).square().sum(0);
}

}  // namespace satin::ptq
