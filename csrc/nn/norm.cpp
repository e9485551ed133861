#include "nn/norm.h"

namespace satin::nn {

RmsNorm::RmsNorm(const std::string& name, int64_t features, double eps, ParameterStore& store)
    : weight_(store.add(name + ".weight", {features}, Role::kNorm)), eps_(eps), options_(store.shared_options()) {}

at::Tensor RmsNorm::forward(const at::Tensor& x) const {
  const at::ScalarType statistics = statistics_dtype(options_->compute_dtype);
  return at::rms_norm(x.to(statistics), weight_.sizes(), weight_.to(statistics), eps_).to(options_->compute_dtype);
}

}  // namespace satin::nn
