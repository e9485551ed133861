// Root-mean-square normalisation (Zhang and Sennrich 2019, eq. 4).
#pragma once
#include <utility>

#include "nn/parameters.h"
#include "ops/layers.h"

namespace satin::nn {

/// The residual stream in its dtype, and what is yet to be added to it in the compute dtype (undefined: nothing).
using Stream = std::pair<at::Tensor, at::Tensor>;

/// y = x / sqrt(mean(x^2) + eps) * w over the last dimension, with one parameter, name + ".weight" [features].
class RmsNorm {
 public:
  RmsNorm(const std::string& name, int64_t features, double eps, ParameterStore& store);
  /// x [..., features] in the compute dtype or the residual stream's -> the same shape in the compute dtype. Statistics
  /// and the product with the weight are fp32 (fp64 when compute is fp64). Differentiable.
  at::Tensor forward(const at::Tensor& x) const { return forward(x, {}).y; }
  /// Of x + delta, in one pass with that sum: x in the residual stream's dtype, delta in the compute dtype or
  /// undefined.
  ops::RmsNormResult forward(const at::Tensor& x, const at::Tensor& delta) const {
    return ops::rms_norm(x, delta, weight_, eps_, options_->compute_dtype);
  }

  /// The weight as it multiplies: float, or double with double.
  at::Tensor statistics_weight() const { return weight_.detach().to(statistics_dtype(options_->compute_dtype)); }
  double eps() const { return eps_; }

 private:
  at::Tensor weight_;
  double eps_;
  std::shared_ptr<const BuildOptions> options_;
};

}  // namespace satin::nn
