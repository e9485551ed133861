#include "quant/scheme.h"

#include <cmath>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/nearest.h"

namespace satin::quant {
namespace {

const std::vector<std::pair<Method, std::string>> kMethods = {{Method::kMinMaxSymmetric, "minmax_symmetric"},
                                                              {Method::kMinMaxAsymmetric, "minmax_asymmetric"},
                                                              {Method::kLsq, "lsq"},
                                                              {Method::kLsqAsymmetric, "lsq_asymmetric"},
                                                              {Method::kSeq, "seq"},
                                                              {Method::kTernary, "ternary"},
                                                              {Method::kBinary, "binary"},
                                                              {Method::kBitNet, "bitnet"},
                                                              {Method::kOneBit, "onebit"}};

std::string storage_name(Storage storage) {
  return storage == Storage::kBFloat16 ? "bfloat16" : storage == Storage::kFloat16 ? "float16" : "exact";
}

}  // namespace

double Scheme::nominal_bits() const { return has_three_levels() ? std::log2(3.0) : bits; }

double Scheme::effective_bits(int64_t in_features) const {
  const double bits_a_group = 16 + (has_zero_point() ? bits : 0);
  return bits + bits_a_group * static_cast<double>(groups(in_features)) / static_cast<double>(in_features);
}

bool operator==(const Scheme& a, const Scheme& b) {
  return a.method == b.method && a.bits == b.bits && a.group_size == b.group_size && a.scale_dtype == b.scale_dtype &&
         a.dequant_dtype == b.dequant_dtype && a.mse_init == b.mse_init;
}

std::string to_string(Method method) {
  for (const auto& [known, name] : kMethods)
    if (known == method) return name;
  throw InternalError(cat("unknown quantization method ", static_cast<int>(method)));
}

Method method_from_string(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [method, known] : kMethods) {
    if (known == name) return method;
    names.push_back(known);
  }
  std::string list = "none";
  for (const std::string& known : names) list += ", " + known;
  throw UserError(cat("unknown quantization method \"", name, "\": expected one of ", list, did_you_mean(name, names)));
}

std::string describe(const Scheme& scheme) {
  return cat(to_string(scheme.method), " ", scheme.has_three_levels() ? "1.58" : cat(scheme.bits),
             scheme.bits == 1 ? " bit " : " bits ",
             scheme.group_size < 0 ? "per row" : cat("group ", scheme.group_size), " ",
             storage_name(scheme.scale_dtype));
}

}  // namespace satin::quant
