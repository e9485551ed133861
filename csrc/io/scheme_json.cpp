#include "io/scheme_json.h"

#include "config/schema.h"
#include "core/error.h"
#include "quant/policy.h"

namespace satin::io {
namespace {

using quant::Storage;
constexpr std::pair<const char*, Storage> kStorages[] = {
    {"bfloat16", Storage::kBFloat16}, {"float16", Storage::kFloat16}, {"exact", Storage::kExact}};

const char* to_name(Storage storage) {
  for (const auto& [name, value] : kStorages)
    if (value == storage) return name;
  SATIN_CHECK(false, "unnamed storage ", static_cast<int>(storage));
}

Storage to_storage(const std::string& name, const std::string& where) {
  for (const auto& [known, value] : kStorages)
    if (name == known) return value;
  throw UserError(cat(where, ": expected bfloat16, float16 or exact, found \"", name, "\""));
}

}  // namespace

nlohmann::json scheme_to_json(const quant::Scheme& scheme) {
  nlohmann::json json = {{"method", quant::to_string(scheme.method)},
                         {"bits", scheme.bits},
                         {"group_size", scheme.group_size},
                         {"scale_dtype", to_name(scheme.scale_dtype)},
                         {"dequant_dtype", to_name(scheme.dequant_dtype)},
                         {"init", quant::to_string(scheme.init)},
                         {"activations", quant::to_string(scheme.activations)}};
  if (scheme.has_columns()) json["column_bits"] = scheme.column_bits;
  return json;
}

quant::Scheme scheme_from_json(const nlohmann::json& json, const std::string& where) {
  try {
    config::QuantizationRule rule;  // a scheme that a configuration could not have is refused in the same words
    rule.method = json.at("method").get<std::string>();
    rule.bits = json.at("bits").get<int>();
    rule.group_size = json.at("group_size").get<int64_t>();
    rule.init = json.value("init", "mse");
    rule.activations = json.value("activations", "none");
    const auto checked = quant::scheme_from_rule(rule, where);
    if (!checked) throw UserError(cat(where, ": method none is not a scheme"));
    quant::Scheme scheme = *checked;
    scheme.scale_dtype = to_storage(json.at("scale_dtype").get<std::string>(), where + ": scale_dtype");
    scheme.dequant_dtype = to_storage(json.at("dequant_dtype").get<std::string>(), where + ": dequant_dtype");
    if (json.contains("column_bits")) scheme.column_bits = json["column_bits"].get<std::vector<int>>();
    quant::check_column_bits(scheme, where);
    return scheme;
  } catch (const nlohmann::json::exception& error) {
    throw UserError(cat(where, ": not a quantization scheme: ", error.what()));
  }
}

}  // namespace satin::io
