#include "nn/mlp.h"

#include "ops/layers.h"

namespace satin::nn {

GatedMlp::GatedMlp(const std::string& name, int64_t hidden_size, int64_t intermediate_size, bool bias,
                   const LinearFactory& factory, ParameterStore& store)
    : gate_proj_(factory({name + ".gate_proj", hidden_size, intermediate_size, bias}, store)),
      up_proj_(factory({name + ".up_proj", hidden_size, intermediate_size, bias}, store)),
      down_proj_(factory({name + ".down_proj", intermediate_size, hidden_size, bias}, store)) {}

at::Tensor GatedMlp::forward(const at::Tensor& x) const {
  return down_proj_->forward(ops::swiglu(gate_proj_->forward(x), up_proj_->forward(x)));
}

Stream GatedMlp::step(const Stream& stream, at::ScalarType dtype) const {
  const auto [x, sum] = gate_and_up_->gated(stream, dtype);
  return added(*down_proj_, sum, x);
}

}  // namespace satin::nn
