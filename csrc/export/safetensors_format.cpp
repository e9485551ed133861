#include "export/safetensors_format.h"

#include "core/error.h"
#include "core/file.h"
#include "export/in_parallel.h"
#include "export/integer_grid.h"

namespace satin::exporting {

Packing dense_packing(const ShippedTensor& tensor) {
  return {{{tensor.name, tensor.dtype, tensor.shape}}, [&tensor] { return std::vector{tensor.values()}; }};
}

std::string transformers_snippet() {
  return "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
         "model = AutoModelForCausalLM.from_pretrained(\"DIRECTORY\", dtype=\"auto\")\n"
         "tokenizer = AutoTokenizer.from_pretrained(\"DIRECTORY\")\n"
         "inputs = tokenizer(\"Once upon a time\", return_tensors=\"pt\")\n"
         "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))";
}

SafetensorsFormat::Split SafetensorsFormat::split(
    const ShippedModel& model,
    const std::function<Packing(const std::string& module, const ShippedTensor& tensor)>& packing) const {
  Split split{};
  for (const auto& tensor : model.tensors) {
    const std::string module = module_of(tensor.name);
    if (tensor.scheme && packs(tensor.name)) {
      split.scheme = &*tensor.scheme;
      split.packings.push_back(packing(module, tensor));
      continue;
    }
    split.packings.push_back(dense_packing(tensor));
    if (module.ends_with("_proj") && tensor.name.ends_with(".weight")) split.dense.push_back(module);
  }
  if (!split.scheme) throw UserError(cat("format ", name(), ": the model has no quantized layer; use format hf"));
  return split;
}

void SafetensorsFormat::write(const ShippedModel& model, const fs::path& directory, const WriteOptions& options) const {
  const Plan plan = this->plan(model);
  std::vector<io::TensorSpec> specs;
  std::vector<int64_t> sizes;
  for (const Packing& packing : plan.packings) {
    sizes.push_back(0);
    for (const auto& spec : packing.specs) {
      sizes.back() += spec.size_bytes();
      specs.push_back(spec);
    }
  }
  io::SafetensorsWriter writer(directory, specs, options.shard_bytes);
  const auto pack = [&](size_t i) {
    const Packing& packing = plan.packings[i];
    std::vector<at::Tensor> made = packing.make();
    SATIN_CHECK_EQ(made.size(), packing.specs.size());
    for (size_t k = 0; k < made.size(); ++k) writer.write(packing.specs[k].name, std::exchange(made[k], {}));
  };
  in_parallel(sizes, pack, "packing", options.progress);
  writer.commit();
  for (const auto& [name, json] : plan.files) write_file_atomically(directory / name, json.dump(2) + "\n");
}

}  // namespace satin::exporting
