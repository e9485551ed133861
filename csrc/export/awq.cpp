// Writing AWQ; awq.h has the layout.
#include "export/awq.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "export/integer_grid.h"
#include "export/pack.h"
#include "export/safetensors_format.h"

namespace satin::exporting {
namespace {

constexpr int kBits = 4;

at::Tensor order() { return at::tensor({0, 2, 4, 6, 1, 3, 5, 7}, at::kLong); }

class AwqFormat : public SafetensorsFormat {
 public:
  std::string name() const override { return "awq"; }
  std::string holds() const override {
    return "integer grids of up to 4 bits (as 4-bit codes), symmetric or asymmetric, ternary and binary, per group or "
           "row, the same group_size in every layer, with scales that are float16 values";
  }
  bool packs(const std::string& name) const override { return is_packed_module(name); }

  std::string refusal(const quant::Scheme& scheme, at::ScalarType dtype) const override {
    if (const std::string reason = integer_grid_refusal(scheme, dtype); !reason.empty()) return reason;
    return storage_bits(scheme) > kBits ? "its codes have 4 bits" : "";
  }

  std::string refusal_of_layers(const std::vector<QuantizedLayer>& layers) const override {
    for (const auto& layer : layers) {
      const QuantizedLayer& first = layers.front();
      if (stored_group(layer.scheme) != stored_group(first.scheme))
        return cat("it has one group_size a model, ", first.name, " is ", quant::describe(first.scheme), " and ",
                   layer.name, " ", quant::describe(layer.scheme));
      if (layer.out_features % 8)
        return cat(layer.name, " has ", layer.out_features, " outputs, and eight share a word");
    }
    return "";
  }

  std::string refusal_of_values(const quant::QuantizedWeight& weight) const override { return scales_refusal(weight); }

  std::string checked_at_the_end(const quant::Scheme& scheme) const override {
    return scales_checked_at_the_end(scheme);
  }
  std::string library_name() const override { return "transformers"; }
  std::vector<Client> clients() const override {
    return {gptqmodel_client(), {"transformers (with gptqmodel)", "python", transformers_snippet()}};
  }

 protected:
  Plan plan(const ShippedModel& model) const override {
    auto [packings, scheme, dense] = split(model, [this](const auto&... of) { return packing(of...); });
    nlohmann::json config = model.hf_config;
    config["quantization_config"] = {
        {"quant_method", "awq"}, {"version", "gemm"},
        {"bits", kBits},         {"group_size", stored_group(*scheme)},
        {"zero_point", true},    {"modules_to_not_convert", dense.empty() ? nlohmann::json() : nlohmann::json(dense)}};
    if (!dense.empty()) config["quantization_config"]["dynamic"] = exclusions(dense);  // what GPTQModel looks at
    return {std::move(packings), {{"config.json", config}}};
  }

 private:
  Packing packing(const std::string& module, const ShippedTensor& tensor) const {
    const int64_t num_rows = tensor.shape[0], num_columns = tensor.shape[1],
                  num_groups = tensor.scheme->groups(num_columns);
    Packing packing;
    packing.specs = {{module + ".qweight", at::kInt, {num_columns, num_rows / 8}},
                     {module + ".qzeros", at::kInt, {num_groups, num_rows / 8}},
                     {module + ".scales", at::kHalf, {num_groups, num_rows}}};
    packing.make = [this, &tensor]() -> std::vector<at::Tensor> {
      const quant::QuantizedWeight weight = held_weight(*this, tensor);
      const auto [codes, zero] = integer_codes(weight, kBits);
      return {pack_awq(codes.t()), pack_awq(zero.to(at::kByte).t()), weight.scale.t().to(at::kHalf)};
    };
    return packing;
  }
};

}  // namespace

at::Tensor pack_awq(const at::Tensor& codes) {
  SATIN_CHECK(codes.dim() == 2 && codes.size(1) % 8 == 0, "codes ", codes.sizes());
  return pack_bits(codes.reshape({codes.size(0), -1, 8}).index_select(2, order()).flatten(1).contiguous(), kBits);
}

at::Tensor unpack_awq(const at::Tensor& words) {
  const at::Tensor nibbles = unpack_bits(words.contiguous(), kBits, 8 * words.size(1));
  return nibbles.view({words.size(0), -1, 8}).index_select(2, order().argsort()).flatten(1);
}

std::unique_ptr<Format> make_awq_format() { return std::make_unique<AwqFormat>(); }

}  // namespace satin::exporting
