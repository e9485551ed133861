#include <algorithm>
#include <map>
#include <set>

#include "core/error.h"
#include "export/compressed_tensors.h"
#include "export/module_pattern.h"
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

[[noreturn]] void refuse_compressed_tensors(const std::string& what) {
  throw UserError(cat("quantization_config of compressed-tensors: ", what));
}

/// Dynamic 8-bit values with a scale a token.
quant::Activations parse_activations(const std::string& name, const nlohmann::json& group) {
  const auto inputs = group.find("input_activations");
  if (inputs == group.end() || inputs->is_null()) return quant::Activations::kNone;
  const std::string type = inputs->value("type", "int");
  if (inputs->value("num_bits", 0) != 8 || !inputs->value("dynamic", false) || !inputs->value("symmetric", true) ||
      inputs->value("strategy", "") != "token" || (type != "int" && type != "float"))
    refuse_compressed_tensors(
        cat(name, ".input_activations: expected 8 bits, dynamic, symmetric, strategy token, found ", inputs->dump()));
  return type == "float" ? quant::Activations::kFloat8 : quant::Activations::kInt8;
}

void check_layout(const std::string& where, const nlohmann::json& json) {
  const auto layout = json.find("format");
  if (layout == json.end() || layout->is_null()) return;
  for (const char* known : {"pack-quantized", "int-quantized", "naive-quantized", "mixed-precision"})
    if (*layout == known) return;
  refuse_compressed_tensors(
      cat(where, "format ", layout->dump(), ", expected pack-quantized, int-quantized or mixed-precision"));
}

/// Whether the key is there and says anything.
bool says(const nlohmann::json& json, const char* key) {
  const auto value = json.find(key);
  return value != json.end() && !value->is_null() && !value->empty() && *value != false;
}

Group parse_group(const std::string& name, const nlohmann::json& json) {
  check_layout(name + ": ", json);
  if (!says(json, "weights")) refuse_compressed_tensors(cat(name, ": expected weights, found none"));
  const nlohmann::json& weights = json.at("weights");
  if (says(json, "output_activations"))
    refuse_compressed_tensors(cat(name, ".output_activations: quantized outputs are not supported"));
  if (weights.value("type", "int") != "int")
    refuse_compressed_tensors(cat(name, ": weights of type ", weights["type"], ", expected int"));
  if (says(weights, "actorder") && weights["actorder"] != "weight" && weights["actorder"] != "static")
    refuse_compressed_tensors(
        cat(name, ": actorder ", weights["actorder"].dump(), " is not supported, only weight is"));
  const std::string strategy = weights.value("strategy", "");
  if (strategy != "group" && strategy != "channel")
    refuse_compressed_tensors(cat(name, ": strategy '", strategy, "', expected group or channel"));
  const auto bits = weights.at("num_bits").get<int64_t>();
  if (bits < 2 || bits > 8) refuse_compressed_tensors(cat(name, ": ", bits, " bits, expected 2 to 8"));
  Group group{json.at("targets").get<std::vector<std::string>>(), static_cast<int>(bits),
              weights.value("symmetric", true), strategy == "group" ? weights.at("group_size").get<int64_t>() : -1,
              parse_activations(name, json)};
  if (group.group_size == 0 || group.group_size < -1)
    refuse_compressed_tensors(cat(name, ": group_size ", group.group_size));
  return group;
}

std::vector<Group> parse_groups(const nlohmann::json& config) {
  check_layout("", config);
  if (says(config, "kv_cache_scheme"))
    refuse_compressed_tensors("kv_cache_scheme: quantized KV caches are not supported");
  if (says(config, "transform_config")) refuse_compressed_tensors("transform_config: transforms are not supported");
  if (const auto sparsity = config.find("sparsity_config"); sparsity != config.end() && sparsity->is_object())
    if (sparsity->value("format", "dense") != "dense")
      refuse_compressed_tensors("sparsity_config: sparse weights are not supported");
  std::vector<Group> groups;
  for (const auto& [name, group] : config.at("config_groups").items()) groups.push_back(parse_group(name, group));
  return groups;
}

/// Exact names first, then "re:" patterns in their alphabetical order, then the class name, as the library does.
const Group& group_of(const std::vector<Group>& groups, const std::string& module) {
  std::map<std::string, const Group*> patterns;
  const Group* linears = nullptr;
  for (const auto& group : groups)
    for (const auto& target : group.targets) {
      if (target == module) return group;
      if (target.starts_with("re:")) patterns[target.substr(3)] = &group;
      if (target == "Linear" && !linears) linears = &group;
    }
  for (const auto& [pattern, group] : patterns)
    if (matches_from_start(pattern, module)) return *group;
  if (!linears) refuse_compressed_tensors(cat(module, " is quantized, but no config_group targets it"));
  return *linears;
}

void expect(const io::TensorDirectory& files, const std::string& name, at::ScalarType type,
            const std::vector<int64_t>& shape) {
  if (!files.contains(name)) throw UserError(cat("missing tensor ", name));
  const io::TensorInfo& found = files.info(name);
  if (found.dtype != type || found.shape != shape)
    throw UserError(cat(name, ": expected ", c10::toString(type), " ", at::IntArrayRef(shape), ", found ",
                        c10::toString(found.dtype), " ", at::IntArrayRef(found.shape)));
}

quant::Scheme scheme_of(const Group& group, at::ScalarType dtype) {
  quant::Scheme scheme;
  scheme.method = group.symmetric ? quant::Method::kLsq : quant::Method::kLsqAsymmetric;
  scheme.bits = group.bits;
  scheme.group_size = group.group_size;
  scheme.activations = group.activations;
  scheme.scale_dtype = scheme.dequant_dtype = dtype == at::kHalf ? quant::Storage::kFloat16 : quant::Storage::kBFloat16;
  return scheme;
}

/// [N, G] int32 of a symmetric weight.
at::Tensor middle(const quant::Scheme& scheme, int64_t num_rows, int64_t num_groups) {
  return at::full({num_rows, num_groups}, 1 << (scheme.bits - 1), at::kInt);
}

/// Checks what the headers say of a pack-quantized module's tensors; their content is read when it is asked for.
ShippedTensor packed_tensor(const Files& files, const std::string& module, const Group& group, at::ScalarType dtype) {
  expect(*files, module + ".weight_shape", at::kLong, {2});
  const at::Tensor shape = files->tensor(module + ".weight_shape");
  const int64_t num_rows = shape[0].item<int64_t>(), num_columns = shape[1].item<int64_t>();
  constexpr int64_t kMax = 1 << 30;
  if (num_rows <= 0 || num_columns <= 0 || num_rows > kMax || num_columns > kMax ||
      (group.group_size > 0 && num_columns % group.group_size))
    throw UserError(
        cat(module, ".weight_shape: [", num_rows, ", ", num_columns, "] does not fit group_size ", group.group_size));
  const quant::Scheme scheme = scheme_of(group, dtype);
  const int64_t num_groups = scheme.groups(num_columns);
  expect(*files, module + ".weight_packed", at::kInt, {num_rows, (num_columns * group.bits + 31) / 32});
  expect(*files, module + ".weight_scale", dtype, {num_rows, num_groups});
  if (!group.symmetric)
    expect(*files, module + ".weight_zero_point", at::kInt, {(num_rows * group.bits + 31) / 32, num_groups});
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
            : middle(scheme, num_rows, num_groups);
    return weight;
  };
  return {module + ".weight", {num_rows, num_columns}, scheme, load};
}

/// Signed bytes -> 0 ... 2^bits - 1, in their own type.
at::Tensor codes_of_bytes(const at::Tensor& bytes, int bits, const std::string& name) {
  const int half = 1 << (bits - 1);
  const auto [low, high] = at::aminmax(bytes);
  if (low.item<int>() < -half || high.item<int>() >= half)
    throw UserError(cat(name, ": expected ", bits, "-bit integers, ", -half, " to ", half - 1, ", found ",
                        low.item<int>(), " to ", high.item<int>()));
  return (bytes.to(at::kShort) + half).to(at::kByte);
}

/// The same of an int-quantized module.
ShippedTensor byte_tensor(const Files& files, const std::string& module, const Group& group, at::ScalarType dtype) {
  const std::vector<int64_t> shape = files->info(module + ".weight").shape;
  if (shape.size() != 2 || shape[0] == 0 || shape[1] == 0 || (group.group_size > 0 && shape[1] % group.group_size))
    throw UserError(
        cat(module, ".weight: ", at::IntArrayRef(shape), " is no matrix of whole groups of ", group.group_size));
  const quant::Scheme scheme = scheme_of(group, dtype);
  const int64_t num_groups = scheme.groups(shape[1]);
  expect(*files, module + ".weight_scale", dtype, {shape[0], num_groups});
  if (!group.symmetric) expect(*files, module + ".weight_zero_point", at::kChar, {shape[0], num_groups});
  const auto load = [files, module, scheme, num_rows = shape[0], num_groups] {
    const auto codes = [&](const std::string& name) { return codes_of_bytes(files->tensor(name), scheme.bits, name); };
    quant::QuantizedWeight weight;
    weight.scheme = scheme;
    weight.codes = codes(module + ".weight");
    weight.scale = files->tensor(module + ".weight_scale");
    weight.zero_point = scheme.has_zero_point() ? codes(module + ".weight_zero_point").to(at::kInt)
                                                : middle(scheme, num_rows, num_groups);
    return weight;
  };
  return {module + ".weight", shape, scheme, load};
}

}  // namespace

void read_compressed_tensors(const Files& files, const nlohmann::json& config, ShippedModel& model) {
  std::vector<Group> groups;
  try {
    groups = parse_groups(config);
  } catch (const nlohmann::json::exception& error) {
    refuse_compressed_tensors(error.what());
  }
  if (model.dtype != at::kBFloat16 && model.dtype != at::kHalf)
    throw UserError(
        cat("config.json: dtype ", c10::toString(model.dtype), ", packed weights need bfloat16 or float16"));
  // What a module is stored as is seen from its tensors: clients differ in what they make of "format".
  std::set<std::string> packed, bytes;
  for (const auto& name : files->names()) {
    if (name.ends_with(".weight_packed")) packed.insert(name.substr(0, name.size() - 14));
    if (name.ends_with(".weight") && files->info(name).dtype == at::kChar)
      bytes.insert(name.substr(0, name.size() - 7));
  }
  for (const auto& module : packed) model.add(packed_tensor(files, module, group_of(groups, module), model.dtype));
  for (const auto& module : bytes) model.add(byte_tensor(files, module, group_of(groups, module), model.dtype));
  static const std::set<std::string> kParts = {"weight_packed", "weight_scale", "weight_zero_point", "weight_shape"};
  for (const auto& name : files->names()) {
    const size_t dot = name.rfind('.');
    const std::string module = name.substr(0, dot), last = dot == std::string::npos ? name : name.substr(dot + 1);
    if (last == "weight_g_idx") throw UserError(cat(name, ": activation order is not supported"));
    if (kParts.contains(last) && !packed.contains(module) && !bytes.contains(module))
      throw UserError(cat(name, ": there is no quantized weight ", module, " beside it"));
    if (!kParts.contains(last) && !(last == "weight" && bytes.contains(module))) model.add(stored_tensor(files, name));
  }
}

}  // namespace satin::exporting
