#include "quant/scheme.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
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

/// "2, 3 and 4 bits".
std::string bits_of_columns(const Scheme& scheme) {
  const std::set<int> all(scheme.column_bits.begin(), scheme.column_bits.end());
  std::string text;
  for (const int bits : all) text += cat(text.empty() ? "" : bits == *all.rbegin() ? " and " : ", ", bits);
  return text + " bits";
}

}  // namespace

bool Scheme::has_narrow_columns() const {
  return std::any_of(column_bits.begin(), column_bits.end(), [this](int own) { return own < bits; });
}

Scheme Scheme::stored() const {
  Scheme plain = *this;
  plain.column_bits.clear();
  return plain;
}

Scheme Scheme::of_groups(int64_t first, int64_t count) const {
  Scheme part = *this;
  if (has_columns()) part.column_bits = {column_bits.begin() + first, column_bits.begin() + first + count};
  return part;
}

double Scheme::nominal_bits() const {
  if (has_columns())
    return std::accumulate(column_bits.begin(), column_bits.end(), 0.0) / static_cast<double>(column_bits.size());
  return has_three_levels() ? std::log2(3.0) : bits;
}

double Scheme::effective_bits(int64_t out_features, int64_t in_features) const {
  const auto rows = static_cast<double>(out_features), columns = static_cast<double>(in_features);
  const double num_groups = per_tensor() ? 1 : rows * static_cast<double>(groups(in_features));
  const double vector_bits = method == Method::kOneBit ? 16 * columns : 0;  // the second value vector
  const double code_bits = has_columns() ? nominal_bits() : bits;
  return code_bits + ((16 + (has_zero_point() ? code_bits : 0)) * num_groups + vector_bits) / (rows * columns);
}

bool operator==(const Scheme& a, const Scheme& b) {
  return a.method == b.method && a.bits == b.bits && a.group_size == b.group_size && a.scale_dtype == b.scale_dtype &&
         a.dequant_dtype == b.dequant_dtype && a.init == b.init && a.activations == b.activations &&
         a.column_bits == b.column_bits;
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
  const std::string bits = scheme.has_columns() ? cat(bits_of_columns(scheme), ", stored in ", scheme.bits, ",")
                                                : cat(scheme.has_three_levels() ? "1.58" : cat(scheme.bits),
                                                      scheme.bits == 1 ? " bit" : " bits");
  return cat(to_string(scheme.method), " ", bits, " ", sharing, " ", storage_name(scheme.scale_dtype), inputs);
}

std::string describe_columns(const Scheme& scheme) {
  return scheme.has_columns() ? cat("columns of ", bits_of_columns(scheme)) : "";
}

}  // namespace satin::quant
