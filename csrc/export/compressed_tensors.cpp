// Writing compressed-tensors; compressed_tensors.h has the layouts.
#include "export/compressed_tensors.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/error.h"
#include "export/integer_grid.h"
#include "export/pack.h"
#include "export/safetensors_format.h"

namespace satin::exporting {
namespace {

/// Bits that hold the scheme's levels as signed integers around zero: 3 for SEQ's {-3,-1,1,3}, 2 for a sign.
int signed_bits(const quant::Scheme& scheme) {
  return scheme.method == quant::Method::kSeq ? 3 : std::max(2, scheme.bits);
}

/// "int-quantized" is what clients with 8-bit products load: both sides 8 bits, a scale a row and a scale a token.
bool as_bytes(const quant::Scheme& scheme) {
  return scheme.activations == quant::Activations::kInt8 && scheme.bits == 8 && scheme.group_size == -1 &&
         scheme.has_integer_grid() && !scheme.has_zero_point();
}

nlohmann::json weights_args(const quant::Scheme& scheme) {
  const bool grouped = scheme.group_size > 0;
  nlohmann::json args = {{"num_bits", signed_bits(scheme)},
                         {"type", "int"},
                         {"symmetric", !scheme.has_zero_point()},
                         {"strategy", grouped ? "group" : "channel"},
                         {"dynamic", false}};
  args["group_size"] = grouped ? nlohmann::json(scheme.group_size) : nlohmann::json(nullptr);
  return args;
}

/// Null, or what clients compute at run time: one scale a token.
nlohmann::json input_args(const quant::Scheme& scheme) {
  if (scheme.activations == quant::Activations::kNone) return nullptr;
  return {{"num_bits", 8},
          {"type", scheme.activations == quant::Activations::kFloat8 ? "float" : "int"},
          {"symmetric", true},
          {"strategy", "token"},
          {"dynamic", true}};
}

class CompressedTensorsFormat : public SafetensorsFormat {
 public:
  std::string name() const override { return "compressed-tensors"; }
  std::string holds() const override {
    return "integer grids of 2 to 8 bits, symmetric or asymmetric, SEQ (as 3-bit codes), ternary and binary (as 2-bit "
           "codes), per group or row, with scales in the model's dtype; 8-bit activations with a scale a token";
  }

  std::string refusal(const quant::Scheme& scheme, at::ScalarType dtype) const override {
    if (scheme.method == quant::Method::kOneBit)
      return "its layers have a second value vector and a norm, for which the format has no place";
    if (scheme.activations == quant::Activations::kInt8Static) return "learned activation scales are not written yet";
    return scale_dtype_refusal(scheme, dtype);
  }

  std::string library_name() const override { return "transformers"; }
  std::vector<Client> clients() const override {
    return {{"transformers (`pip install 'compressed-tensors>=0.17'`)", "python", transformers_snippet()}};
  }

 protected:
  Plan plan(const ShippedModel& model) const override {
    Plan plan;
    std::map<std::string, std::pair<nlohmann::json, std::vector<std::string>>> groups;  // args' text -> args, modules
    std::set<std::string> layouts;
    bool activations = false;
    std::vector<std::string> ignored = {"lm_head"};  // also when tied: the library finds a Linear of this name
    for (const auto& tensor : model.tensors) {
      const std::string module = module_of(tensor.name);
      if (!tensor.scheme || module == "model.embed_tokens") {  // clients look rows up in dense embeddings
        plan.packings.push_back(dense_packing(tensor));
        if (module.ends_with("_proj")) ignored.push_back(module);
        continue;
      }
      if (module == "lm_head") ignored.erase(ignored.begin());
      const bool bytes = as_bytes(*tensor.scheme);
      plan.packings.push_back(bytes ? byte_packing(module, tensor) : packing(module, tensor));
      nlohmann::json args = {{"weights", weights_args(*tensor.scheme)},
                             {"format", bytes ? "int-quantized" : "pack-quantized"}};
      layouts.insert(args["format"]);
      if (const nlohmann::json inputs = input_args(*tensor.scheme); !inputs.is_null()) {
        args["input_activations"] = inputs;
        activations = true;
      }
      auto& group = groups[args.dump()];
      group.first = args;
      group.second.push_back(module);
    }

    if (groups.empty()) throw UserError("format compressed-tensors: the model has no quantized layer; use format hf");
    nlohmann::json config_groups = nlohmann::json::object();
    for (const auto& [text, group] : groups) {
      const nlohmann::json targets = groups.size() == 1 ? nlohmann::json{"Linear"} : nlohmann::json(group.second);
      nlohmann::json entry = group.first;
      entry["targets"] = targets;
      // Said of each group where clients would take it from the activations, and wrongly; older ones do not know it.
      if (!activations) entry.erase("format");
      config_groups[cat("group_", config_groups.size())] = entry;
    }
    nlohmann::json config = model.hf_config;
    config["quantization_config"] = {{"quant_method", "compressed-tensors"},
                                     {"format", layouts.size() == 1 ? *layouts.begin() : "mixed-precision"},
                                     {"quantization_status", "compressed"},
                                     {"ignore", ignored},
                                     {"config_groups", config_groups}};
    plan.files = {{"config.json", config}};
    return plan;
  }

 private:
  Packing byte_packing(const std::string& module, const ShippedTensor& tensor) const {
    Packing packing;
    packing.specs = {
        {module + ".weight", at::kChar, tensor.shape},
        {module + ".weight_scale", quant::storage_dtype(tensor.scheme->scale_dtype, at::kFloat), {tensor.shape[0], 1}}};
    packing.make = [this, &tensor]() -> std::vector<at::Tensor> {
      const quant::QuantizedWeight weight = held_weight(*this, tensor);
      return {quant::levels(weight).to(at::kChar), weight.scale};
    };
    return packing;
  }

  Packing packing(const std::string& module, const ShippedTensor& tensor) const {
    const quant::Scheme& scheme = *tensor.scheme;
    const int bits = signed_bits(scheme);
    const bool asymmetric = scheme.has_zero_point();
    const int64_t num_rows = tensor.shape[0], num_columns = tensor.shape[1], num_groups = scheme.groups(num_columns);
    const auto num_words = [bits](int64_t count) { return (count * bits + 31) / 32; };
    Packing packing;
    packing.specs = {
        {module + ".weight_packed", at::kInt, {num_rows, num_words(num_columns)}},
        {module + ".weight_scale", quant::storage_dtype(scheme.scale_dtype, at::kFloat), {num_rows, num_groups}},
        {module + ".weight_shape", at::kLong, {2}}};
    if (asymmetric)
      packing.specs.push_back({module + ".weight_zero_point", at::kInt, {num_words(num_rows), num_groups}});
    packing.make = [this, &tensor, bits, asymmetric, num_rows, num_columns] {
      const quant::QuantizedWeight weight = held_weight(*this, tensor);
      // Asymmetric codes and zero points carry the offset already: both are 0 .. 2^bits - 1.
      const at::Tensor codes = asymmetric ? weight.codes : quant::codes_around(weight, 1 << (bits - 1));
      std::vector made = {pack_bits(codes, bits), weight.scale, at::tensor({num_rows, num_columns}, at::kLong)};
      if (asymmetric)
        made.push_back(pack_bits(weight.zero_point.to(at::kByte).t().contiguous(), bits).t().contiguous());
      return made;
    };
    return packing;
  }
};

}  // namespace

std::unique_ptr<Format> make_compressed_tensors_format() { return std::make_unique<CompressedTensorsFormat>(); }

}  // namespace satin::exporting
