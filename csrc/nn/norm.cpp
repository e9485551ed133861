#include "nn/norm.h"

namespace satin::nn {

RmsNorm::RmsNorm(const std::string& name, int64_t features, double eps, ParameterStore& store)
    : weight_(store.add(name + ".weight", {features}, Role::kNorm)),
      eps_(eps),
      compute_dtype_(store.options().compute_dtype) {}

at::Tensor RmsNorm::forward(const at::Tensor& x) const {
  const at::ScalarType statistics = statistics_dtype(compute_dtype_);
  return at::rms_norm(x.to(statistics), weight_.sizes(), weight_.to(statistics), eps_).to(compute_dtype_);
}

}  // namespace satin::nn
