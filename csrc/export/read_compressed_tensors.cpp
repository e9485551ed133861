#include <algorithm>
#include <regex>
#include <set>

#include "core/error.h"
#include "export/compressed_tensors.h"
#include "export/pack.h"

namespace satin::exporting {
namespace {

struct Group {
  std::vector<std::string> targets;
  int bits;
  bool symmetric;
  int64_t group_size;
  quant::Activations activations;
};

[[noreturn]] void refuse(const std::string& what) {
  throw UserError(cat("quantization_config of compressed-tensors: ", what));
}

/// Dynamic 8-bit values with a scale a token.
quant::Activations parse_activations(const std::string& name, const nlohmann::json& group) {
  const auto inputs = group.find("input_activations");
  if (inputs == group.end() || inputs->is_null()) return quant::Activations::kNone;
  const std::string type = inputs->value("type", "int");
  if (inputs->value("num_bits", 0) != 8 || !inputs->value("dynamic", false) || !inputs->value("symmetric", true) ||
      inputs->value("strategy", "") != "token" || (type != "int" && type != "float"))
    refuse(
        cat(name, ".input_activations: expected 8 bits, dynamic, symmetric, strategy token, found ", inputs->dump()));
  return type == "float" ? quant::Activations::kFloat8 : quant::Activations::kInt8;
}

Group parse_group(const std::string& name, const nlohmann::json& json) {
  const nlohmann::json& weights = json.at("weights");
  if (json.contains("output_activations") && !json["output_activations"].is_null())
    refuse(cat(name, ".output_activations: quantized outputs are not supported"));
  if (weights.value("type", "int") != "int") refuse(cat(name, ": weights of type ", weights["type"], ", expected int"));
  if (weights.contains("actorder") && !weights["actorder"].is_null()) refuse(cat(name, ": actorder is not supported"));
  const std::string strategy = weights.value("strategy", "");
  if (strategy != "group" && strategy != "channel")
    refuse(cat(name, ": strategy '", strategy, "', expected group or channel"));
  Group group{json.at("targets").get<std::vector<std::string>>(), weights.at("num_bits").get<int>(),
              weights.value("symmetric", true), strategy == "group" ? weights.at("group_size").get<int64_t>() : -1,
              parse_activations(name, json)};
  if (group.bits < 2 || group.bits > 8) refuse(cat(name, ": ", group.bits, " bits, expected 2 to 8"));
  if (group.group_size == 0 || group.group_size < -1) refuse(cat(name, ": group_size ", group.group_size));
  return group;
}

/// As Python's re.match: from the start, not to the end.
bool matches(const std::string& module, const std::string& pattern) {
  try {
    return std::regex_search(module, std::regex(pattern), std::regex_constants::match_continuous);
  } catch (const std::regex_error& error) {
    refuse(cat("target 're:", pattern, "': ", error.what()));
  }
}

/// Exact names first, then "re:" patterns, then the class name, as the library does.
const Group& group_of(const std::vector<Group>& groups, const std::string& module) {
  for (int pass = 0; pass < 3; ++pass)
    for (const auto& group : groups)
      for (const auto& target : group.targets) {
        const bool pattern = target.starts_with("re:");
        if (pass == 0 && target == module) return group;
        if (pass == 1 && pattern && matches(module, target.substr(3))) return group;
        if (pass == 2 && target == "Linear") return group;
      }
  refuse(cat(module, " is packed, but no config_group targets it"));
}

/// Checks what the headers say of a module's tensors; their content is read when it is asked for.
ShippedTensor packed_tensor(const Files& files, const std::string& module, const Group& group, at::ScalarType dtype) {
  const auto expect = [&](const std::string& suffix, at::ScalarType type, const std::vector<int64_t>& shape) {
    if (!files->contains(module + suffix)) throw UserError(cat("missing tensor ", module, suffix));
    const io::TensorInfo& found = files->info(module + suffix);
    if (found.dtype != type || found.shape != shape)
      throw UserError(cat(module, suffix, ": expected ", c10::toString(type), " ", at::IntArrayRef(shape), ", found ",
                          c10::toString(found.dtype), " ", at::IntArrayRef(found.shape)));
  };
  expect(".weight_shape", at::kLong, {2});
  const at::Tensor shape = files->tensor(module + ".weight_shape");
  const int64_t num_rows = shape[0].item<int64_t>(), num_columns = shape[1].item<int64_t>();
  constexpr int64_t kMax = 1 << 30;
  if (num_rows <= 0 || num_columns <= 0 || num_rows > kMax || num_columns > kMax ||
      (group.group_size > 0 && num_columns % group.group_size))
    throw UserError(
        cat(module, ".weight_shape: [", num_rows, ", ", num_columns, "] does not fit group_size ", group.group_size));
  const int64_t num_groups = group.group_size > 0 ? num_columns / group.group_size : 1;
  expect(".weight_packed", at::kInt, {num_rows, (num_columns * group.bits + 31) / 32});
  expect(".weight_scale", dtype, {num_rows, num_groups});
  if (!group.symmetric) expect(".weight_zero_point", at::kInt, {(num_rows * group.bits + 31) / 32, num_groups});

  quant::Scheme scheme;
  scheme.method = group.symmetric ? quant::Method::kLsq : quant::Method::kLsqAsymmetric;
  scheme.bits = group.bits;
  scheme.group_size = group.group_size;
  scheme.activations = group.activations;
  scheme.scale_dtype = scheme.dequant_dtype = dtype == at::kHalf ? quant::Storage::kFloat16 : quant::Storage::kBFloat16;
  const auto load = [files, module, scheme, num_rows, num_columns, num_groups] {
    quant::QuantizedWeight weight;
    weight.scheme = scheme;
    weight.codes = unpack_bits(files->tensor(module + ".weight_packed"), scheme.bits, num_columns);
    weight.scale = files->tensor(module + ".weight_scale");
    weight.zero_point =
        scheme.has_zero_point()
            ? unpack_bits(files->tensor(module + ".weight_zero_point").t().contiguous(), scheme.bits, num_rows)
                  .t()
                  .contiguous()
                  .to(at::kInt)
            : at::full({num_rows, num_groups}, 1 << (scheme.bits - 1), at::kInt);
    return weight;
  };
  return {module + ".weight", {num_rows, num_columns}, scheme, load};
}

}  // namespace

void read_compressed_tensors(const Files& files, const nlohmann::json& config, ShippedModel& model) {
  std::vector<Group> groups;
  try {
    if (config.value("format", "") != "pack-quantized")
      refuse(cat("format '", config.value("format", ""), "', expected pack-quantized"));
    for (const auto& [name, group] : config.at("config_groups").items()) groups.push_back(parse_group(name, group));
  } catch (const nlohmann::json::exception& error) {
    refuse(error.what());
  }
  if (model.dtype != at::kBFloat16 && model.dtype != at::kHalf)
    throw UserError(
        cat("config.json: dtype ", c10::toString(model.dtype), ", packed weights need bfloat16 or float16"));
  static const std::string kPacked = ".weight_packed";
  std::set<std::string> modules;
  for (const auto& name : files->names())
    if (name.ends_with(kPacked)) modules.insert(name.substr(0, name.size() - kPacked.size()));
  for (const auto& module : modules) model.add(packed_tensor(files, module, group_of(groups, module), model.dtype));
  for (const auto& name : files->names()) {
    const size_t dot = name.rfind('.');
    const std::string module = name.substr(0, dot), last = dot == std::string::npos ? name : name.substr(dot + 1);
    const bool part =
        last == "weight_packed" || last == "weight_scale" || last == "weight_zero_point" || last == "weight_shape";
    if (part && modules.contains(module)) continue;
    if (part) throw UserError(cat(name, ": there is no ", module, ".weight_packed beside it"));
    model.add(stored_tensor(files, name));
  }
}

}  // namespace satin::exporting
