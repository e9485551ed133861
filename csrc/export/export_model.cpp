#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "core/nearest.h"
#include "export/format.h"
#include "export/gguf.h"
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

/// Values that a format does not hold, seen when they were made.
struct ValueRefusal {
  std::string reason;
};

/// Empty, or why the format does not hold a model of these layers, whatever their values.
std::string first_refusal(const Format& format, const std::vector<QuantizedLayer>& layers, at::ScalarType dtype) {
  std::vector<QuantizedLayer> packed;
  for (const auto& layer : layers) {
    const bool packs = format.packs(layer.name);
    if (packs) packed.push_back(layer);
    const std::string reason = (packs ? format : exporting::format("hf")).refusal(layer.scheme, dtype);
    if (!reason.empty()) return cat(layer.name, " (", quant::describe(layer.scheme), ") exactly: ", reason);
  }
  const std::string reason = format.refusal_of_layers(packed);
  return reason.empty() ? "" : cat("this model exactly: ", reason);
}

/// The formats that hold all of it; with the model, all of its values too.
std::vector<const Format*> exact_formats(const std::vector<QuantizedLayer>& layers, at::ScalarType dtype,
                                         const ShippedModel* model) {
  std::vector<const Format*> exact;
  for (const auto& format : formats())
    if (first_refusal(*format, layers, dtype).empty()) exact.push_back(format.get());
  if (model)
    for (const auto& tensor : model->tensors) {
      if (!tensor.scheme) continue;
      const quant::QuantizedWeight weight = tensor.quantized();
      std::erase_if(exact, [&](const Format* format) {
        return format->packs(tensor.name) && !format->refusal_of_values(weight).empty();
      });
    }
  return exact;
}

[[noreturn]] void refuse(const Format& format, const std::string& reason, const std::vector<const Format*>& exact) {
  std::string names;
  for (const Format* other : exact) names += (names.empty() ? "" : ", ") + other->name();
  throw UserError(cat("format ", format.name(), " cannot hold ", reason, ". It holds ", format.holds(),
                      ". Formats that hold this model exactly: ", names.empty() ? "none" : names));
}

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

std::vector<QuantizedLayer> layers_of(const ShippedModel& model) {
  std::vector<QuantizedLayer> layers;
  for (const auto& tensor : model.tensors)
    if (tensor.scheme) layers.push_back({tensor.name, *tensor.scheme, tensor.shape[0], tensor.shape[1]});
  return layers;
}

}  // namespace

void check_exact(const Format& format, const std::vector<QuantizedLayer>& layers, at::ScalarType dtype) {
  if (const std::string reason = first_refusal(format, layers, dtype); !reason.empty())
    refuse(format, reason, exact_formats(layers, dtype, nullptr));
}

quant::QuantizedWeight held_weight(const Format& format, const ShippedTensor& tensor) {
  quant::QuantizedWeight weight = tensor.quantized();
  if (const std::string reason = format.refusal_of_values(weight); !reason.empty())
    throw ValueRefusal{cat("this model exactly: ", tensor.name, ": ", reason)};
  return weight;
}

void export_model(const ShippedModel& model, const Format& format, const fs::path& output, bool force,
                  const WriteOptions& options) {
  const std::vector<QuantizedLayer> layers = layers_of(model);
  check_exact(format, layers, model.dtype);
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
    format.write(model, directory.path(), options);
  } catch (const ValueRefusal& refusal) {
    refuse(format, refusal.reason, exact_formats(layers, model.dtype, &model));
  }
  verify(model, open_model(directory.path()), format, options.progress);
  if (!is_file) return directory.commit();
  const fs::path parent = output.parent_path().empty() ? "." : output.parent_path();
  fs::rename(directory.path() / "model.gguf", output);  // synced when it was written
  sync_path(parent);
}

}  // namespace satin::exporting
