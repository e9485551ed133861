#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/nearest.h"
#include "export/format.h"
#include "export/gguf.h"
#include "export/model_card.h"
#include "export/nearest.h"
#include "export/refusal.h"
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
    made.push_back(make_bitnet_format());
    made.push_back(make_gguf_format());
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

/// Bit for bit: levels and scales where both are quantized, values everywhere.
void verify(const ShippedModel& written, const ShippedModel& read, const Format& as, const Progress& progress) {
  const std::string format = as.name();
  std::vector<const ShippedTensor*> tensors;
  std::vector<int64_t> sizes;
  for (const auto& tensor : written.tensors) {
    if (!as.stores(written, tensor.name)) continue;
    tensors.push_back(&tensor);
    sizes.push_back(tensor.num_elements());
  }
  SATIN_CHECK_EQ(tensors.size(), read.tensors.size());
  const auto compare = [&](size_t i) {
    const ShippedTensor& tensor = *tensors[i];
    const ShippedTensor* back = read.find(tensor.name);
    SATIN_CHECK(back, format, " lost ", tensor.name);
    SATIN_CHECK(tensor.shape == back->shape, format, ": the shape of ", tensor.name, " differs");
    if (!tensor.scheme || !back->scheme) {
      SATIN_CHECK(tensor.values().equal(back->values()), format, ": values of ", tensor.name, " differ");
      return;
    }
    const quant::QuantizedWeight all = tensor.quantized(), all_back = back->quantized();
    const int64_t num_rows = all.codes.size(0), step = quant::rows_at_once(all.codes.size(1));
    for (int64_t first = 0; first < num_rows; first += step) {
      const auto a = quant::rows(all, first, std::min(num_rows, first + step));
      const auto b = quant::rows(all_back, first, std::min(num_rows, first + step));
      SATIN_CHECK(quant::levels(a).equal(quant::levels(b)), format, ": codes of ", tensor.name, " differ");
      SATIN_CHECK(a.scale.equal(b.scale.to(a.scale.scalar_type())), format, ": scales of ", tensor.name, " differ");
      SATIN_CHECK(quant::dequantize(a).equal(quant::dequantize(b)), format, ": values of ", tensor.name, " differ");
    }
  };
  in_parallel(sizes, compare, "verifying", progress);
}

/// Formats have one number of bits a layer: where columns have fewer, their codes are codes of the widest.
ShippedModel without_columns(ShippedModel model) {
  std::vector<ShippedTensor> narrow;
  for (const auto& tensor : model.tensors)
    if (tensor.scheme && tensor.scheme->has_columns()) narrow.push_back(tensor);
  for (const ShippedTensor& tensor : narrow) {
    model.tensors.erase(model.tensors.find(tensor.name));
    model.add({tensor.name, tensor.shape, tensor.scheme->stored(), [tensor] {
                 quant::QuantizedWeight weight = tensor.quantized();
                 weight.scheme = weight.scheme.stored();
                 return weight;
               }});
  }
  return model;
}

/// Says what codes such columns have in the files.
void log_columns(const ShippedModel& trained, const ShippedModel& written) {
  std::map<std::string, std::vector<std::string>> layers;  // by what is said
  for (const auto& tensor : trained.tensors) {
    const ShippedTensor* stored = written.find(tensor.name);
    if (!tensor.scheme || !tensor.scheme->has_columns() || !stored || !stored->scheme) continue;
    layers[cat(quant::describe_columns(*tensor.scheme), " are stored in ", stored->scheme->bits)].push_back(
        tensor.name);
  }
  for (const auto& [what, names] : layers)
    log_info(cat(what, ": ", names.front(), names.size() > 1 ? cat(" and ", names.size() - 1, " more") : ""));
}

/// Whether `inner` is `outer` or below it.
bool is_within(const fs::path& inner, const fs::path& outer) {
  const fs::path relative = fs::weakly_canonical(inner).lexically_relative(fs::weakly_canonical(outer));
  return !relative.empty() && *relative.begin() != "..";
}

/// Throws UserError unless `output` is free, or an earlier export that may be replaced.
void check_output(const fs::path& output, bool is_file, const fs::path& source, bool force) {
  if (!fs::exists(output)) return;
  if (!force) throw UserError(cat("--output: ", output.string(), " exists; use --force to replace it"));
  if (is_within(source, output))
    throw UserError(cat("--output: ", output.string(), " holds the model that is to be exported, ", source.string(),
                        "; choose another directory"));
  const bool earlier_export =
      is_file ? fs::is_regular_file(output)
              : fs::is_directory(output) && !io::is_checkpoint(output) &&
                    (fs::is_empty(output) || fs::exists(output / "config.json") || fs::exists(output / "model.gguf"));
  if (!earlier_export)
    throw UserError(cat("--output: ", output.string(),
                        " is not an earlier export, and --force replaces only those; choose another directory"));
}

}  // namespace

ExportReport export_model(const ShippedModel& trained, const Format& format, const fs::path& output, bool force,
                          const WriteOptions& options) {
  const ShippedModel model = without_columns(trained);
  const ShippedModel nearest = options.lossy ? nearest_model(model, format) : ShippedModel();
  const ShippedModel& shipped = options.lossy ? nearest : model;
  const std::vector<QuantizedLayer> layers = layers_of(shipped);
  check_exact(format, layers, shipped.dtype);
  const bool is_file = format.one_file() && output.extension() == ".gguf";
  check_output(output, is_file, model.directory, force);
  AtomicDirectory directory(output);
  if (format.one_file())
    ;  // holds them
  else if (model.kind == "gguf")
    write_model_files(model.directory, directory.path());
  else
    io::copy_model_files(model.directory, directory.path());
  try {
    format.write(shipped, directory.path(), options);
  } catch (const ValueRefusal& refusal) {
    refuse(format, refusal.reason, exact_formats(layers, shipped.dtype, &shipped), layers, shipped.dtype);
  }
  const ShippedModel written = open_model(directory.path());
  verify(shipped, written, format, options.progress);
  log_columns(trained, written);
  ExportReport report;
  report.is_lossy = options.lossy;
  if (options.lossy) {
    report.damage = damage(model, shipped, options.progress);
    for (const auto& tensor : model.tensors)
      report.num_activations_changed +=
          tensor.scheme && tensor.scheme->activations != shipped.find(tensor.name)->scheme->activations;
  }
  if (options.evaluate) report.evaluations = options.evaluate(directory.path());
  if (is_file) {
    const fs::path parent = output.parent_path().empty() ? "." : output.parent_path();
    fs::rename(directory.path() / "model.gguf", output);  // synced when it was written
    sync_path(parent);
  } else {
    write_file_atomically(directory.path() / "README.md", model_card(trained, written, format, report));
    directory.commit();
  }
  return report;
}

}  // namespace satin::exporting
