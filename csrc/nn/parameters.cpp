#include "nn/parameters.h"

#include "core/error.h"

namespace satin::nn {

at::Tensor ParameterStore::add(const std::string& name, at::IntArrayRef shape, Role role,
                               std::optional<at::ScalarType> dtype) {
  SATIN_CHECK(!find(name), "two parameters named ", name);
  const at::ScalarType type = dtype.value_or(options_->master_dtype);
  at::Tensor value = at::empty(shape, at::TensorOptions().dtype(type).device(options_->device));
  if (options_->trainable && at::isFloatingType(type)) value.requires_grad_(true);
  index_.emplace(name, parameters_.size());
  parameters_.push_back({name, value, role});
  return value;
}

const Parameter* ParameterStore::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &parameters_[it->second];
}

at::Tensor ParameterStore::at(const std::string& name) const {
  const Parameter* found = find(name);
  SATIN_CHECK(found, "no parameter named ", name);
  return found->value;
}

at::ScalarType statistics_dtype(at::ScalarType compute_dtype) {
  return compute_dtype == at::kDouble ? at::kDouble : at::kFloat;
}

ComputeScope::ComputeScope(ParameterStore& store, at::ScalarType dtype)
    : options_(store.options_), before_(options_->compute_dtype) {
  SATIN_CHECK(statistics_dtype(dtype) == statistics_dtype(before_), "a model in ", before_, " cannot compute in ",
              dtype);
  options_->compute_dtype = dtype;
}

ComputeScope::~ComputeScope() { options_->compute_dtype = before_; }

}  // namespace satin::nn
