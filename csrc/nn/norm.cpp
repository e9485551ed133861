#include "nn/norm.h"

namespace satin::nn {

RmsNorm::RmsNorm(const std::string& name, int64_t features, double eps, ParameterStore& store)
    : weight_(store.add(name + ".weight", {features}, Role::kNorm)), eps_(eps), options_(store.shared_options()) {}

}  // namespace satin::nn
