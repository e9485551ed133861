#include "quant/policy.h"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/nearest.h"

namespace satin::quant {
namespace {

bool matches(const std::string& glob, const std::string& module) {
  return fnmatch(glob.c_str(), module.c_str(), 0) == 0;
}

const std::string kEmbedding = "model.embed_tokens";

/// A bare star is meant for layers: embeddings are asked for by name.
bool applies(const std::string& glob, const std::string& module) {
  return matches(glob, module) && (module != kEmbedding || glob.find("embed") != std::string::npos);
}

Storage storage_from_string(const std::string& name, const std::string& where) {
  if (name == "bfloat16") return Storage::kBFloat16;
  if (name == "float16") return Storage::kFloat16;
  throw UserError(cat(where, ".scale_dtype: expected bfloat16 or float16, found \"", name, "\""));
}

int stored_bits(const config::QuantizationRule& rule, Method method, const std::string& where) {
  if (Scheme{.method = method}.has_three_levels()) {
    // 2 is what a code takes and what an override inherits; 1.58 is the method's usual name.
    if (std::abs(rule.bits - std::log2(3.0)) < 0.01 || rule.bits == 2) return 2;
    throw UserError(cat(where, ".bits: ", rule.method, " has 1.58 bits, found ", rule.bits));
  }
  if (method == Method::kBinary || method == Method::kOneBit) {
    if (rule.bits == 1) return 1;
    throw UserError(cat(where, ".bits: ", rule.method, " has 1 bit, found ", rule.bits));
  }
  if (method == Method::kSeq && rule.bits != 2) throw UserError(cat(where, ".bits: seq has 2 bits, found ", rule.bits));
  if (rule.bits != std::floor(rule.bits) || rule.bits < 2 || rule.bits > 8)
    throw UserError(cat(where, ".bits: expected a whole number from 2 to 8, found ", rule.bits));
  return static_cast<int>(rule.bits);
}

/// The module name that a glob which matches nothing probably meant: nearest to the glob read as a name.
std::string suggestion(const std::string& glob, const std::vector<std::string>& modules) {
  const std::string direct = did_you_mean(glob, modules);
  if (!direct.empty() || modules.empty()) return direct;
  // Compare what follows the last dot or star with the modules' own last parts.
  const auto last_part = [](const std::string& name) { return name.substr(name.find_last_of(".*") + 1); };
  std::vector<std::string> parts;
  for (const std::string& module : modules) parts.push_back(last_part(module));
  const std::string part = nearest(last_part(glob), parts);
  const auto found = std::find(parts.begin(), parts.end(), part);
  const std::string& example = found == parts.end() ? modules.front() : modules[found - parts.begin()];
  return cat("; the nearest name is ", example);
}

}  // namespace

std::optional<Scheme> scheme_from_rule(const config::QuantizationRule& rule, const std::string& where) {
  if (rule.method == "none") return std::nullopt;
  Scheme scheme;
  try {
    scheme.method = method_from_string(rule.method);
  } catch (const UserError& error) {
    throw UserError(cat(where, ".method: ", error.what()));
  }
  scheme.bits = stored_bits(rule, scheme.method, where);
  if (rule.group_size < -1)
    throw UserError(cat(where, ".group_size: expected -1 (one scale a row), 0 (one a tensor) or at least 1, found ",
                        rule.group_size));
  if (scheme.method == Method::kOneBit && rule.group_size != -1)
    throw UserError(cat(where, ".group_size: onebit has one value a row (-1), found ", rule.group_size));
  if (scheme.method == Method::kLwc && rule.group_size == 0)
    throw UserError(cat(where, ".group_size: lwc clips groups or rows, found 0 (one scale a tensor)"));
  scheme.group_size = rule.group_size;
  scheme.scale_dtype = storage_from_string(rule.scale_dtype, where);
  scheme.dequant_dtype = scheme.scale_dtype;
  const auto init = init_from_string(rule.init);
  if (!init) throw UserError(cat(where, ".init: expected data, mse or weighted_mse, found \"", rule.init, "\""));
  scheme.init = *init;
  const auto activations = activations_from_string(rule.activations);
  if (!activations)
    throw UserError(
        cat(where, ".activations: expected none, int8, int8_static or float8, found \"", rule.activations, "\""));
  scheme.activations = *activations;
  if (!rule.column_bits.empty()) {
    if (rule.group_size > 0)
      scheme.column_bits = bits_of_groups(rule.column_bits, rule.group_size);
    else
      scheme.column_bits.assign(rule.column_bits.begin(), rule.column_bits.end());
    check_column_bits(scheme, where);
  }
  return scheme;
}

std::vector<int> bits_of_groups(const std::vector<int64_t>& column_bits, int64_t group_size) {
  std::vector<int> found;
  for (const int64_t bits : column_bits)
    found.insert(found.end(), static_cast<size_t>(std::max<int64_t>(1, config::kBitColumns / group_size)),
                 static_cast<int>(bits));
  return found;
}

void check_column_bits(const Scheme& scheme, const std::string& where) {
  if (!scheme.has_columns()) return;
  const auto refuse = [&](const auto&... parts) { throw UserError(cat(where, ".column_bits: ", parts...)); };
  if (scheme.method != Method::kLsq && scheme.method != Method::kLsqAsymmetric)
    refuse("method ", to_string(scheme.method), " has one number of bits; expected lsq or lsq_asymmetric");
  if (scheme.group_size <= 0 || config::kBitColumns % scheme.group_size != 0)
    refuse("expected a group_size that divides ", config::kBitColumns, ", found ", scheme.group_size);
  const auto [least, most] = std::ranges::minmax(scheme.column_bits);
  if (least < 2 || most > scheme.bits)
    refuse("expected 2 to ", scheme.bits, " bits, which codes are stored in, found ", least < 2 ? least : most,
           "; correct it, or raise bits");
}

void check_fits(const Scheme& scheme, const std::string& module, int64_t in_features) {
  const auto num_bits = static_cast<int64_t>(scheme.column_bits.size()) * scheme.group_size;
  if (scheme.has_columns() && num_bits != in_features)
    throw UserError(cat("quantization: column_bits are one for each ", config::kBitColumns, " inputs; those of ",
                        module, " are for ", num_bits, " inputs, it has ", in_features,
                        in_features % config::kBitColumns
                            ? "; leave column_bits out"
                            : cat("; give ", in_features / config::kBitColumns, ", or leave column_bits out")));
  if (scheme.group_size <= 0 || in_features % scheme.group_size == 0) return;
  std::string sizes;
  for (int64_t size = 8; size <= 1024; size *= 2)
    if (in_features % size == 0) sizes += cat(size, ", ");
  throw UserError(cat("quantization: group_size ", scheme.group_size, " does not divide the ", in_features,
                      " inputs of ", module, "; sizes that do: ", sizes, "-1 (one scale a row), 0 (one a tensor)"));
}

Policy::Policy(const config::Quantization& quantization)
    : default_(scheme_from_rule(quantization.default_rule, "quantization.default")) {
  for (size_t i = 0; i < quantization.overrides.size(); ++i) {
    const config::QuantizationRule& rule = quantization.overrides[i];
    const std::string where = cat("quantization.overrides[", i, "]");
    if (rule.match.empty())
      throw UserError(cat(where, ".match: expected a glob over module names, as in model.layers.*.mlp.*"));
    overrides_.push_back({rule.match, scheme_from_rule(rule, where)});
  }
}

Policy::Decision Policy::decide(const std::string& module) const {
  for (int i = static_cast<int>(overrides_.size()) - 1; i >= 0; --i) {
    const Rule& rule = overrides_[i];
    if (!applies(rule.glob, module)) continue;
    if (rule.scheme) return {rule.scheme, "", i};
    return {std::nullopt, cat("quantization.overrides[", i, "] (", rule.glob, ") says none"), i};
  }
  if (module == kEmbedding) return {std::nullopt, "only an override that names embed_tokens quantizes embeddings", -1};
  if (module == "lm_head") return {std::nullopt, "the default leaves the LM head in full precision", -1};
  if (!default_) return {std::nullopt, "quantization.default says none", -1};
  return {default_, "", -1};
}

void Policy::check_all_match(const std::vector<std::string>& modules) const {
  for (size_t i = 0; i < overrides_.size(); ++i) {
    const std::string& glob = overrides_[i].glob;
    if (std::any_of(modules.begin(), modules.end(), [&](const std::string& name) { return applies(glob, name); }))
      continue;
    throw UserError(cat("quantization.overrides[", i, "].match: \"", glob, "\" matches none of the model's ",
                        modules.size(), " linear layers", suggestion(glob, modules)));
  }
}

}  // namespace satin::quant
