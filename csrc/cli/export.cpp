// satin export: a checkpoint as files that other engines load, read back and compared bit for bit.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/open_model.h"
#include "core/error.h"
#include "core/log.h"
#include "data/text_source.h"
#include "eval/corpus.h"
#include "eval/protocol.h"
#include "export/format.h"
#include "export/gguf.h"
#include "report/progress.h"

namespace satin::cli {
namespace {

/// {"perplexity", "protocol", ...}
nlohmann::json perplexity_of(const std::string& directory, const config::DataSource& source) {
  const auto [model, tokenizer, decoder] = open_model(directory, "auto", "float32");
  return eval::to_json(eval::perplexity(*decoder, eval::read_tokens(source, tokenizer), 1024), *decoder,
                       eval::documents_protocol(source));
}

void print(const exporting::ExportReport& report) {
  if (report.is_lossy && report.is_exact()) std::printf("nothing was lost: the format holds every value\n");
  if (report.num_activations_changed)
    std::printf("lossy: %ld layers were trained with rounded activations that the files do not ask for\n",
                report.num_activations_changed);
  if (!report.damage.empty())
    std::printf("%-20s %16s %16s %16s\n", "lossy", "layers changed", "largest error", "relative RMS");
  for (const auto& damage : report.damage)
    std::printf("%-20s %16s %16.3g %16.3g\n", damage.kind.c_str(),
                cat(damage.num_changed, " of ", damage.num_layers).c_str(), damage.max_error, damage.relative_rms);
  for (const auto& evaluation : report.evaluations) {
    std::printf("perplexity before %.6f\n", *evaluation.before);
    std::printf("perplexity after  %.6f\n", evaluation.perplexity);
  }
}

}  // namespace

void add_export(CLI::App& app) {
  struct Options {
    std::string checkpoint, format, output, data, gguf_type;
    int gptq_version = 0;
    bool force = false, lossy = false;
  };
  auto options = std::make_shared<Options>();
  auto* command =
      app.add_subcommand("export", "write a checkpoint in a format that other engines load, and verify it bit for bit");
  command->add_option("--checkpoint", options->checkpoint, "checkpoint or model directory")->required();
  command->add_option("--format", options->format, "hf, compressed-tensors, gptq, awq, bitnet or gguf")->required();
  command->add_option("--output", options->output, "directory to write; with gguf also FILE.gguf")->required();
  command->add_option("--gptq-version", options->gptq_version,
                      "1 or 2: zero points stored minus one, or as they are (default: 1 for symmetric models, else 2)");
  command->add_option("--gguf-type", options->gguf_type,
                      "type of every quantized weight (Q2_K, Q4_0, TQ2_0, ...), or BF16, F16, F32 for dense matrices "
                      "(default: for each weight the smallest that holds it exactly)");
  command->add_flag("--force", options->force, "replace an existing output");
  command->add_flag("--lossy", options->lossy,
                    "convert layers that the format does not hold exactly to the nearest that it holds, and say what "
                    "is lost");
  command->add_option("--data", options->data, "FILE[:FIELD]: print its perplexity before and after");
  command->footer(
      "Example: satin export --checkpoint runs/x/checkpoints/step-100 --format compressed-tensors --output out/ --data "
      "valid.jsonl");
  command->callback([options, command] {
    const exporting::Format* format = &exporting::format(options->format);
    std::unique_ptr<exporting::Format> chosen;
    if (command->count("--gptq-version")) {
      if (format->name() != "gptq")
        throw UserError(cat("--gptq-version: expected only with --format gptq, found --format ", format->name()));
      if (options->gptq_version != 1 && options->gptq_version != 2)
        throw UserError(cat("--gptq-version: expected 1 or 2, found ", options->gptq_version));
      chosen = exporting::make_gptq_format(options->gptq_version);
      format = chosen.get();
    }
    if (command->count("--gguf-type")) {
      if (format->name() != "gguf")
        throw UserError(cat("--gguf-type: expected only with --format gguf, found --format ", format->name()));
      chosen = exporting::make_gguf_format(options->gguf_type);
      format = chosen.get();
    }
    exporting::WriteOptions how{.progress = report::show_part_done, .lossy = options->lossy};
    if (!options->data.empty()) {
      const config::DataSource source = eval::parse_data_argument("--data", options->data, "", "");
      how.evaluate = [options, source](const std::filesystem::path& written) {
        end_progress();
        const nlohmann::json before = perplexity_of(options->checkpoint, source),
                             after = perplexity_of(written, source);
        return std::vector{exporting::Evaluation{data::source_name(source), after["perplexity"],
                                                 before["perplexity"].get<double>(), after["protocol"].dump()}};
      };
    }
    const exporting::ShippedModel model = exporting::open_model(options->checkpoint);
    const exporting::ExportReport report =
        exporting::export_model(model, *format, options->output, options->force, how);
    end_progress();
    const exporting::Footprint size = exporting::footprint(exporting::open_model(options->output));
    std::printf("%s: %s, %s, %s\n", options->output.c_str(), format->name().c_str(),
                report::bytes_text(size.size_bytes).c_str(),
                report.is_exact() ? "every code and scale equal to the checkpoint's"
                                  : "read back and equal to what the checkpoint was converted to");
    if (size.num_quantized)
      std::printf("quantized: %ld of %ld parameters, %.3f effective bits\n", size.num_quantized, size.num_parameters,
                  size.effective_bits);
    print(report);
  });
}

}  // namespace satin::cli
