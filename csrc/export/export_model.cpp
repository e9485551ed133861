#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "core/nearest.h"
#include "export/format.h"
#include "io/checkpoint.h"
#include "io/model_files.h"

namespace satin::exporting {

const std::vector<std::unique_ptr<Format>>& formats() {
  static const auto list = [] {
    std::vector<std::unique_ptr<Format>> made;
    made.push_back(make_hf_format());
    made.push_back(make_compressed_tensors_format());
    made.push_back(make_gptq_format());
    made.push_back(make_awq_format());
    return made;
  }();
  return list;
}

const Format& format(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& candidate : formats()) {
    if (candidate->name() == name) return *candidate;
    names.push_back(candidate->name());
  }
  std::string all;
  for (const auto& known : names) all += (all.empty() ? "" : ", ") + known;
  throw UserError(cat("unknown export format '", name, "'", did_you_mean(name, names), " Formats: ", all));
}

namespace {

/// Empty, or why the format does not hold a model of these layers (with these values, where given).
std::string first_refusal(const Format& format, const std::vector<QuantizedLayer>& layers, at::ScalarType dtype,
                          const ShippedModel* model) {
  std::vector<QuantizedLayer> packed;
  for (const auto& layer : layers) {
    const bool packs = format.packs(layer.name);
    if (packs) packed.push_back(layer);
    const std::string reason = (packs ? format : exporting::format("hf")).refusal(layer.scheme, dtype);
    if (!reason.empty()) return cat(layer.name, " (", quant::describe(layer.scheme), ") exactly: ", reason);
  }
  std::string reason = format.refusal_of_layers(packed);
  if (reason.empty() && model) reason = format.refusal_of_values(*model);
  return reason.empty() ? "" : cat("this model exactly: ", reason);
}

void check(const Format& format, const std::vector<QuantizedLayer>& layers, at::ScalarType dtype,
           const ShippedModel* model) {
  const std::string reason = first_refusal(format, layers, dtype, model);
  if (reason.empty()) return;
  std::string exact;
  for (const auto& other : formats())
    if (first_refusal(*other, layers, dtype, model).empty()) exact += (exact.empty() ? "" : ", ") + other->name();
  throw UserError(cat("format ", format.name(), " cannot hold ", reason, ". It holds ", format.holds(),
                      ". Formats that hold this model exactly: ", exact.empty() ? "none" : exact));
}

/// Bit for bit: levels and scales where both are quantized, values everywhere.
void verify(const ShippedModel& written, const ShippedModel& read, const std::string& format) {
  for (const auto& tensor : written.tensors) {
    const ShippedTensor* back = read.find(tensor.name);
    SATIN_CHECK(back, format, " lost ", tensor.name);
    if (tensor.quantized && back->quantized) {
      SATIN_CHECK(quant::levels(*tensor.quantized).equal(quant::levels(*back->quantized)), format, ": codes of ",
                  tensor.name, " differ");
      SATIN_CHECK(tensor.quantized->scale.equal(back->quantized->scale.to(tensor.quantized->scale.scalar_type())),
                  format, ": scales of ", tensor.name, " differ");
    }
    SATIN_CHECK(tensor.values().equal(back->values()), format, ": values of ", tensor.name, " differ");
  }
  SATIN_CHECK_EQ(written.tensors.size(), read.tensors.size());
}

}  // namespace

void check_exact(const Format& format, const std::vector<QuantizedLayer>& layers, at::ScalarType dtype) {
  check(format, layers, dtype, nullptr);
}

void export_model(const ShippedModel& model, const Format& format, const fs::path& output, bool force) {
  std::vector<QuantizedLayer> layers;
  for (const auto& tensor : model.tensors)
    if (tensor.quantized)
      layers.push_back(
          {tensor.name, tensor.quantized->scheme, tensor.quantized->codes.size(0), tensor.quantized->codes.size(1)});
  check(format, layers, model.dtype, &model);
  if (fs::exists(output) && !force)
    throw UserError(cat("--output: ", output.string(), " exists; use --force to replace it"));
  if (fs::exists(output)) {
    const bool earlier_export = fs::is_directory(output) && !io::is_checkpoint(output) &&
                                (fs::is_empty(output) || fs::exists(output / "config.json"));
    std::error_code ignored;
    if (!earlier_export || fs::equivalent(output, model.directory, ignored))
      throw UserError(cat("--output: ", output.string(),
                          " is not an earlier export, and --force replaces only those; choose another directory"));
  }
  AtomicDirectory directory(output);
  io::copy_model_files(model.directory, directory.path());
  format.write(model, directory.path());
  verify(model, open_model(directory.path()), format.name());
  directory.commit();
}

}  // namespace satin::exporting
