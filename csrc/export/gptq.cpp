// Writing GPTQ; gptq.h has the layout.
#include "export/gptq.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "export/integer_grid.h"
#include "export/pack.h"
#include "export/safetensors_format.h"

namespace satin::exporting {
namespace {

class GptqFormat : public SafetensorsFormat {
 public:
  explicit GptqFormat(int version) : version_(version) {
    if (version < 0 || version > 2) throw UserError(cat("GPTQ version: expected 1 or 2, found ", version));
  }
  std::string name() const override { return "gptq"; }
  std::string holds() const override {
    return "integer grids of 2, 3, 4 or 8 bits, symmetric or asymmetric, ternary and binary (as 2-bit codes), per "
           "group "
           "or row, the same bits and group_size in every layer, with scales that are float16 values";
  }
  bool packs(const std::string& name) const override { return is_packed_module(name); }

  std::string refusal(const quant::Scheme& scheme, at::ScalarType dtype) const override {
    if (const std::string reason = integer_grid_refusal(scheme, dtype); !reason.empty()) return reason;
    const int bits = storage_bits(scheme);
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8) return cat("clients read no ", bits, "-bit codes");
    return "";
  }

  std::string refusal_of_layers(const std::vector<QuantizedLayer>& layers) const override {
    for (const auto& layer : layers) {
      const QuantizedLayer& first = layers.front();
      const int bits = storage_bits(layer.scheme);
      if (bits != storage_bits(first.scheme) || stored_group(layer.scheme) != stored_group(first.scheme))
        return cat("it has one number of bits and one group_size a model, ", first.name, " is ",
                   quant::describe(first.scheme), " and ", layer.name, " ", quant::describe(layer.scheme));
      if (layer.out_features * bits % 32 || layer.in_features * bits % 32)
        return cat(layer.name, " is [", layer.out_features, ", ", layer.in_features,
                   "], both must fill whole 32-bit words of ", bits, "-bit codes");
    }
    return "";
  }

  std::string refusal_of_values(const quant::QuantizedWeight& weight) const override {
    if (const std::string reason = scales_refusal(weight); !reason.empty()) return reason;
    if (version_ != 1 || !weight.scheme.has_zero_point()) return "";
    const int64_t count = weight.zero_point.eq(0).sum().item<int64_t>();
    if (count == 0) return "";
    return cat(count, " of ", weight.zero_point.numel(),
               " zero points are 0, and version 1 stores them minus one; use version 2 (--gptq-version 2)");
  }

  std::string checked_at_the_end(const quant::Scheme& scheme) const override {
    return scales_checked_at_the_end(scheme);
  }
  std::string library_name() const override { return "transformers"; }
  std::vector<Client> clients() const override { return {gptqmodel_client()}; }

 protected:
  Plan plan(const ShippedModel& model) const override {
    const bool symmetric = std::ranges::none_of(model.tensors, [this](const ShippedTensor& tensor) {
      return tensor.scheme && packs(tensor.name) && tensor.scheme->has_zero_point();
    });
    const int version = version_ ? version_ : symmetric ? 1 : 2;
    auto [packings, scheme, dense] =
        split(model, [&](const std::string& module, const auto& tensor) { return packing(module, tensor, version); });
    nlohmann::json quantization = {{"quant_method", "gptq"},
                                   {"bits", storage_bits(*scheme)},
                                   {"group_size", stored_group(*scheme)},
                                   {"desc_act", false},
                                   {"sym", symmetric},
                                   {"lm_head", false},
                                   {"checkpoint_format", version == 1 ? "gptq" : "gptq_v2"},
                                   {"pack_dtype", "int32"},
                                   {"meta", {{"quantizer", {"satin"}}}}};
    // GPTQModel reads asymmetric version 1 of writers alone that are known to be free of an old error in zero points.
    if (version == 1 && !symmetric) quantization["meta"]["quantizer"].push_back("gptqmodel:0.9.0");
    if (!dense.empty()) quantization["dynamic"] = exclusions(dense);
    nlohmann::json config = model.hf_config;
    config["quantization_config"] = quantization;
    return {std::move(packings), {{"config.json", config}, {"quantize_config.json", quantization}}};
  }

 private:
  Packing packing(const std::string& module, const ShippedTensor& tensor, int version) const {
    const int bits = storage_bits(*tensor.scheme);
    const int64_t num_rows = tensor.shape[0], num_columns = tensor.shape[1],
                  num_groups = tensor.scheme->groups(num_columns);
    Packing packing;
    packing.specs = {{module + ".qweight", at::kInt, {num_columns * bits / 32, num_rows}},
                     {module + ".qzeros", at::kInt, {num_groups, num_rows * bits / 32}},
                     {module + ".scales", at::kHalf, {num_groups, num_rows}},
                     {module + ".g_idx", at::kInt, {num_columns}}};
    packing.make = [this, &tensor, version, bits, num_columns, num_groups]() -> std::vector<at::Tensor> {
      const quant::QuantizedWeight weight = held_weight(*this, tensor);
      const auto [codes, zero] = integer_codes(weight, bits);
      return {pack_bits(codes, bits).t(),
              pack_bits((version == 1 ? zero - 1 : zero).to(at::kByte).t().contiguous(), bits),
              weight.scale.t().to(at::kHalf),
              at::arange(num_columns, at::kInt).floor_divide(num_columns / num_groups).to(at::kInt)};
    };
    return packing;
  }

  int version_;
};

}  // namespace

std::unique_ptr<Format> make_gptq_format(int version) { return std::make_unique<GptqFormat>(version); }

}  // namespace satin::exporting
