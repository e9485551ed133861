// Writing BitNet; bitnet.h has the layout.
#include "export/bitnet.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "export/integer_grid.h"
#include "export/safetensors_format.h"

namespace satin::exporting {
namespace {

class BitNetFormat : public SafetensorsFormat {
 public:
  std::string name() const override { return "bitnet"; }
  std::string holds() const override {
    return "ternary, BitNet b1.58 and binary weights with a scale a tensor (group_size 0) in the model's dtype and "
           "int8 activations, in layers without biases";
  }
  bool packs(const std::string& name) const override { return is_packed_module(name); }

  std::string refusal(const quant::Scheme& scheme, at::ScalarType dtype) const override {
    if (!scheme.has_three_levels() && scheme.method != quant::Method::kBinary) return "its levels are -1, 0 and 1";
    if (!scheme.per_tensor()) return "it has one scale a tensor; train with group_size 0";
    if (scheme.activations != quant::Activations::kInt8)
      return "its clients round the input of a layer to 8 bits, a scale a token; train with activations int8";
    return scale_dtype_refusal(scheme, dtype);
  }

  std::string refusal_of_layers(const std::vector<QuantizedLayer>& layers) const override {
    for (const auto& layer : layers) {
      if (layer.out_features % 4)
        return cat(layer.name, " has ", layer.out_features, " outputs, and four share a byte");
      if (layer.has_bias) return cat(layer.name, " has a bias, which its clients multiply by the weight's scale");
    }
    return "";
  }

  std::string library_name() const override { return "transformers"; }
  std::vector<Client> clients() const override {
    return {{"transformers (with accelerate)", "python", transformers_snippet()}};
  }

 protected:
  Plan plan(const ShippedModel& model) const override {
    auto [packings, scheme, dense] = split(model, [this](const auto&... of) { return packing(of...); });
    dense.insert(dense.begin(), "lm_head");
    nlohmann::json config = model.hf_config;
    config["quantization_config"] = {{"quant_method", "bitnet"},
                                     {"linear_class", "autobitlinear"},
                                     {"quantization_mode", "offline"},
                                     {"use_rms_norm", false},
                                     {"modules_to_not_convert", dense}};
    return {std::move(packings), {{"config.json", config}}};
  }

 private:
  Packing packing(const std::string& module, const ShippedTensor& tensor) const {
    Packing packing;
    packing.specs = {{module + ".weight", at::kByte, {tensor.shape[0] / 4, tensor.shape[1]}},
                     {module + ".weight_scale", quant::storage_dtype(tensor.scheme->scale_dtype, at::kFloat), {1}}};
    packing.make = [this, &tensor]() -> std::vector<at::Tensor> {
      const quant::QuantizedWeight weight = held_weight(*this, tensor);
      return {pack_bitnet(quant::codes_around(weight, 1)), weight.scale.flatten().slice(0, 0, 1)};
    };
    return packing;
  }
};

}  // namespace

at::Tensor pack_bitnet(const at::Tensor& codes) {
  SATIN_CHECK(codes.dim() == 2 && codes.size(0) % 4 == 0 && codes.scalar_type() == at::kByte, "codes ", codes.sizes());
  const std::vector<at::Tensor> quarters = codes.chunk(4);
  at::Tensor bytes = quarters[0].clone();
  for (int i = 1; i < 4; ++i) bytes.bitwise_or_(quarters[i].bitwise_left_shift(2 * i));
  return bytes;
}

at::Tensor unpack_bitnet(const at::Tensor& bytes) {
  SATIN_CHECK(bytes.dim() == 2 && bytes.scalar_type() == at::kByte, "bytes ", bytes.sizes());
  std::vector<at::Tensor> quarters;
  for (int i = 0; i < 4; ++i) quarters.push_back(bytes.bitwise_right_shift(2 * i).bitwise_and(3));
  return at::cat(quarters);
}

std::unique_ptr<Format> make_bitnet_format() { return std::make_unique<BitNetFormat>(); }

}  // namespace satin::exporting
