#include "nn/parameters.h"

#include "core/error.h"

namespace satin::nn {

RowRange rows_of(const RowShard& shard, int64_t rows) {
  const int64_t each = (rows + shard.size - 1) / shard.size;
  if ((shard.size - 1) * each >= rows) return {0, rows};
  return {shard.rank * each, std::min(each, rows - shard.rank * each)};
}

int64_t block_of(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  return name.starts_with(kPrefix) ? std::stoll(name.substr(kPrefix.size())) : -1;
}

at::Tensor ParameterStore::make(at::IntArrayRef shape, at::ScalarType dtype) const {
  at::Tensor value = at::empty(shape, at::TensorOptions().dtype(dtype).device(options_->device));
  if (options_->trainable && at::isFloatingType(dtype)) value.requires_grad_(true);
  return value;
}

Parameter& ParameterStore::insert(Parameter parameter) {
  SATIN_CHECK(!find(parameter.name), "two parameters named ", parameter.name);
  index_.emplace(parameter.name, parameters_.size());
  return parameters_.emplace_back(std::move(parameter));
}

at::Tensor ParameterStore::add(const std::string& name, at::IntArrayRef shape, Role role,
                               std::optional<at::ScalarType> dtype) {
  return insert({name, make(shape, dtype.value_or(options_->master_dtype)), role, shape.vec()}).value;
}

at::Tensor ParameterStore::add_rows(const std::string& name, at::IntArrayRef shape, Role role,
                                    std::optional<at::ScalarType> dtype) {
  const RowRange rows = rows_of(options_->shard, shape[0]);
  std::vector<int64_t> own = shape.vec();
  own[0] = rows.count;
  return insert({name, make(own, dtype.value_or(options_->master_dtype)), role, shape.vec(), rows.first}).value;
}

at::Tensor ParameterStore::add_gathered(const std::string& name, at::IntArrayRef shape, Role role) {
  add_rows(name, shape, role);
  Parameter& parameter = parameters_.back();
  if (!parameter.is_split()) return parameter.value;
  return parameter.whole = make(shape, options_->master_dtype);
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
