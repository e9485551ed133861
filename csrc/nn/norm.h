// Root-mean-square normalisation (Zhang and Sennrich 2019, eq. 4).
#pragma once
#include "nn/parameters.h"

namespace satin::nn {

/// y = x / sqrt(mean(x^2) + eps) * w over the last dimension, with one parameter, name + ".weight" [features].
class RmsNorm {
 public:
  RmsNorm(const std::string& name, int64_t features, double eps, ParameterStore& store);
  /// x [..., features] of any floating dtype -> the same shape in the compute dtype. Statistics and the product with
  /// the weight are fp32 (fp64 when compute is fp64). Differentiable.
  at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  double eps_;
  std::shared_ptr<const BuildOptions> options_;
};

}  // namespace satin::nn
