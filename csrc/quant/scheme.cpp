#include "quant/scheme.h"

#include <cmath>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/nearest.h"

namespace satin::quant {
namespace {

constexpr std::pair<Method, const char*> kMethods[] = {{Method::kMinMaxSymmetric, "minmax_symmetric"},
                                                       {Method::kMinMaxAsymmetric, "minmax_asymmetric"},
                                                       {Method::kLsq, "lsq"},
                                                       {Method::kLsqAsymmetric, "lsq_asymmetric"},
                                                       {Method::kSeq, "seq"},
                                                       {Method::kTernary, "ternary"},
                                                       {Method::kBinary, "binary"},
                                                       {Method::kBitNet, "bitnet"},
                                                       {Method::kLwc, "lwc"},
                                                       {Method::kOneBit, "onebit"}};
constexpr std::pair<Activations, const char*> kActivations[] = {{Activations::kNone, "none"},
                                                                {Activations::kInt8, "int8"},
                                                                {Activations::kInt8Static, "int8_static"},
                                                                {Activations::kFloat8, "float8"}};
constexpr std::pair<Init, const char*> kInits[] = {
    {Init::kData, "data"}, {Init::kSearch, "mse"}, {Init::kWeightedSearch, "weighted_mse"}};

template <class Enum, size_t N>
const char* name_of(const std::pair<Enum, const char*> (&names)[N], Enum value) {
  for (const auto& [known, name] : names)
    if (known == value) return name;
  throw InternalError(cat("unknown enumerator ", static_cast<int>(value)));
}
template <class Enum, size_t N>
std::optional<Enum> value_of(const std::pair<Enum, const char*> (&names)[N], const std::string& name) {
  for (const auto& [value, known] : names)
    if (name == known) return value;
  return std::nullopt;
}

std::string storage_name(Storage storage) {
  return storage == Storage::kBFloat16 ? "bfloat16" : storage == Storage::kFloat16 ? "float16" : "exact";
}

}  // namespace

double Scheme::nominal_bits() const { return has_three_levels() ? std::log2(3.0) : bits; }

double Scheme::effective_bits(int64_t out_features, int64_t in_features) const {
  const auto rows = static_cast<double>(out_features), columns = static_cast<double>(in_features);
  const double num_groups = per_tensor() ? 1 : rows * static_cast<double>(groups(in_features));
  const double vector_bits = method == Method::kOneBit ? 16 * columns : 0;  // the second value vector
  return bits + ((16 + (has_zero_point() ? bits : 0)) * num_groups + vector_bits) / (rows * columns);
}

bool operator==(const Scheme& a, const Scheme& b) {
  return a.method == b.method && a.bits == b.bits && a.group_size == b.group_size && a.scale_dtype == b.scale_dtype &&
         a.dequant_dtype == b.dequant_dtype && a.init == b.init && a.activations == b.activations;
}

std::string to_string(Method method) { return name_of(kMethods, method); }
std::string to_string(Activations activations) { return name_of(kActivations, activations); }
std::string to_string(Init init) { return name_of(kInits, init); }
std::optional<Activations> activations_from_string(const std::string& name) { return value_of(kActivations, name); }
std::optional<Init> init_from_string(const std::string& name) { return value_of(kInits, name); }

Method method_from_string(const std::string& name) {
  if (const auto method = value_of(kMethods, name)) return *method;
  std::vector<std::string> names;
  std::string list = "none";
  for (const auto& [method, known] : kMethods) {
    names.push_back(known);
    list += cat(", ", known);
  }
  throw UserError(cat("unknown quantization method \"", name, "\": expected one of ", list, did_you_mean(name, names)));
}

std::string describe(const Scheme& scheme) {
  const std::string sharing = scheme.per_tensor()     ? "per tensor"
                              : scheme.group_size < 0 ? "per row"
                                                      : cat("group ", scheme.group_size);
  const std::string inputs =
      scheme.activations == Activations::kNone ? "" : cat(", ", to_string(scheme.activations), " activations");
  return cat(to_string(scheme.method), " ", scheme.has_three_levels() ? "1.58" : cat(scheme.bits),
             scheme.bits == 1 ? " bit " : " bits ", sharing, " ", storage_name(scheme.scale_dtype), inputs);
}

}  // namespace satin::quant
