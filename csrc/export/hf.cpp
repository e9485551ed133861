// hf: a dense model in config.json's dtype. Holds every weight grid exactly: the dequantised weights are 16-bit
// numbers.
#include "core/file.h"
#include "export/format.h"
#include "io/safetensors.h"

namespace satin::exporting {
namespace {

class HfFormat : public Format {
 public:
  std::string name() const override { return "hf"; }
  std::string holds() const override { return "every weight grid, as dense 16-bit weights"; }
  std::string refusal(const quant::Scheme& scheme, at::ScalarType) const override {
    if (scheme.method == quant::Method::kOneBit)
      return "its layers have a second value vector and a norm, for which a dense model has no place";
    if (scheme.activations != quant::Activations::kNone) return "a dense model cannot ask for 8-bit activations";
    return "";
  }

  void write(const ShippedModel& model, const fs::path& directory) const override {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& tensor : model.tensors) tensors.emplace_back(tensor.name, tensor.values());
    io::write_safetensors(directory / "model.safetensors", tensors);
    write_file_atomically(directory / "config.json", model.hf_config.dump(2) + "\n");
  }
};

}  // namespace

std::unique_ptr<Format> make_hf_format() { return std::make_unique<HfFormat>(); }

}  // namespace satin::exporting
