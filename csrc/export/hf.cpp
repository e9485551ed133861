// hf: a dense model in config.json's dtype. Holds every weight grid exactly: the dequantised weights are 16-bit
// numbers.
#include "export/safetensors_format.h"

namespace satin::exporting {
namespace {

class HfFormat : public SafetensorsFormat {
 public:
  std::string name() const override { return "hf"; }
  std::string holds() const override { return "every weight grid, as dense 16-bit weights"; }
  std::string refusal(const quant::Scheme& scheme, at::ScalarType) const override {
    if (scheme.method == quant::Method::kOneBit)
      return "its layers have a second value vector and a norm, for which a dense model has no place";
    if (scheme.activations != quant::Activations::kNone) return "a dense model cannot ask for 8-bit activations";
    return "";
  }

  std::string library_name() const override { return "transformers"; }
  std::vector<Client> clients() const override {
    return {{"transformers", "python", transformers_snippet()}, {"vLLM", "sh", "vllm serve DIRECTORY"}};
  }

 protected:
  Plan plan(const ShippedModel& model) const override {
    Plan plan;
    for (const auto& tensor : model.tensors) plan.packings.push_back(dense_packing(tensor));
    plan.files = {{"config.json", model.hf_config}};
    return plan;
  }
};

}  // namespace

std::unique_ptr<Format> make_hf_format() { return std::make_unique<HfFormat>(); }

}  // namespace satin::exporting
