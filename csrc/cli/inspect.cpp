// satin inspect: what is in a model, checkpoint or artefact.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/error.h"
#include "export/shipped_model.h"
#include "report/progress.h"

namespace satin::cli {
namespace {

nlohmann::json describe(const exporting::ShippedModel& model) {
  auto tensors = nlohmann::json::array();
  for (const auto& tensor : model.tensors) {
    nlohmann::json row = {{"name", tensor.name}, {"shape", tensor.shape}};
    if (tensor.scheme) {
      row["scheme"] = quant::describe(*tensor.scheme);
      row["bits"] = tensor.scheme->nominal_bits();
      if (tensor.scheme->has_columns()) {
        row["stored_bits"] = tensor.scheme->bits;
        row["column_bits"] = tensor.scheme->column_bits;
      }
    } else {
      row["scheme"] = c10::toString(tensor.dtype);
      row["bits"] = tensor.effective_bits;
    }
    row["effective_bits"] = tensor.effective_bits;
    tensors.push_back(row);
  }
  const exporting::Footprint size = exporting::footprint(model);
  const double dense_bits = 8.0 * static_cast<double>(c10::elementSize(model.dtype));
  return {{"kind", model.kind},
          {"model_type", model.config.model_type},
          {"parameters", size.num_parameters},
          {"quantized_parameters", size.num_quantized},
          {"bits", size.num_quantized ? size.nominal_bits : dense_bits},
          {"effective_bits", size.num_quantized ? size.effective_bits : dense_bits},
          {"size_bytes", size.size_bytes},
          {"tensors", tensors}};
}

void print(const nlohmann::json& found) {
  std::printf("%s, %s, %s parameters, %s on disk\n", found["kind"].get<std::string>().c_str(),
              found["model_type"].get<std::string>().c_str(),
              report::count_text(found["parameters"].get<double>()).c_str(),
              report::bytes_text(found["size_bytes"].get<int64_t>()).c_str());
  if (found["quantized_parameters"].get<int64_t>())
    std::printf("quantized: %s parameters at %.3g bits, %.3f with scales and zero points\n",
                report::count_text(found["quantized_parameters"].get<double>()).c_str(), found["bits"].get<double>(),
                found["effective_bits"].get<double>());
  for (const auto& row : found["tensors"])
    std::printf("  %-52s %-16s %7.3f  %s\n", row["name"].get<std::string>().c_str(), row["shape"].dump().c_str(),
                row["effective_bits"].get<double>(), row["scheme"].get<std::string>().c_str());
}

}  // namespace

void add_inspect(CLI::App& app) {
  struct Options {
    std::string path;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  auto* command =
      app.add_subcommand("inspect", "tensors, bits, effective bits with scales, size and scheme of a model directory");
  command->add_option("path", options->path, "model, checkpoint or artefact")->required();
  command->add_flag("--json", options->json, "print JSON");
  command->footer("Example: satin inspect runs/x/export/compressed-tensors");
  command->callback([options] {
    const nlohmann::json found = describe(exporting::open_model(options->path));
    if (options->json)
      std::printf("%s\n", found.dump(1).c_str());
    else
      print(found);
  });
}

}  // namespace satin::cli
