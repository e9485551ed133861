// What formats of safetensors files share: they say what they will write, and here it is written.
#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "export/format.h"
#include "io/safetensors_writer.h"

namespace satin::exporting {

/// File tensors that are made together from one tensor of the model.
struct Packing {
  std::vector<io::TensorSpec> specs;
  std::function<std::vector<at::Tensor>()> make;  ///< one for each spec, in their order; from any thread
};

/// The tensor's values, under its name.
Packing dense_packing(const ShippedTensor& tensor);

/// Python that loads a directory with transformers and continues a text.
std::string transformers_snippet();

struct Plan {
  std::vector<Packing> packings;
  std::vector<std::pair<std::string, nlohmann::json>> files;  ///< config.json and what is beside it
};

class SafetensorsFormat : public Format {
 public:
  void write(const ShippedModel& model, const fs::path& directory, const WriteOptions& options) const final;

 protected:
  /// By names, schemes and shapes alone.
  virtual Plan plan(const ShippedModel& model) const = 0;

  struct Split {
    std::vector<Packing> packings;
    const quant::Scheme* scheme;     ///< of one of the packed weights
    std::vector<std::string> dense;  ///< modules of projections that are not packed
  };
  /// packing(module, tensor) for each quantized tensor that the format packs, the others dense under their names.
  /// Throws UserError when there is nothing to pack.
  Split split(const ShippedModel& model,
              const std::function<Packing(const std::string& module, const ShippedTensor& tensor)>& packing) const;
};

}  // namespace satin::exporting
