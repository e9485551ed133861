// satin export: a checkpoint as files that other engines load, read back and compared bit for bit.
#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/open_model.h"
#include "core/error.h"
#include "core/log.h"
#include "eval/corpus.h"
#include "export/format.h"
#include "export/gguf.h"
#include "report/progress.h"

namespace satin::cli {
namespace {

double perplexity_of(const std::string& directory, const std::string& data) {
  const auto [model, tokenizer, decoder] = open_model(directory, "auto", "float32");
  const config::DataSource source = eval::parse_data_argument("--data", data, "", "");
  return eval::perplexity(*decoder, eval::read_tokens(source, tokenizer), 1024).perplexity();
}

}  // namespace

void add_export(CLI::App& app) {
  struct Options {
    std::string checkpoint, format, output, data, gguf_type;
    int gptq_version = 0;
    bool force = false;
  };
  auto options = std::make_shared<Options>();
  auto* command =
      app.add_subcommand("export", "write a checkpoint in a format that other engines load, and verify it bit for bit");
  command->add_option("--checkpoint", options->checkpoint, "checkpoint or model directory")->required();
  command->add_option("--format", options->format, "hf, compressed-tensors, gptq, awq or gguf")->required();
  command->add_option("--output", options->output, "directory to write; with gguf also FILE.gguf")->required();
  command->add_option("--gptq-version", options->gptq_version,
                      "1 or 2: zero points stored minus one, or as they are (default: 1 for symmetric models, else 2)");
  command->add_option("--gguf-type", options->gguf_type,
                      "type of every quantized weight (Q2_K, Q4_0, TQ2_0, ...), or BF16, F16, F32 for dense matrices "
                      "(default: for each weight the smallest that holds it exactly)");
  command->add_flag("--force", options->force, "replace an existing output");
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
    if (!options->data.empty())
      eval::parse_data_argument("--data", options->data, "", "");  // a typo must not wait for the export
    const exporting::ShippedModel model = exporting::open_model(options->checkpoint);
    exporting::export_model(model, *format, options->output, options->force, {.progress = report::show_part_done});
    end_progress();
    const exporting::Footprint size = exporting::footprint(exporting::open_model(options->output));
    std::printf("%s: %s, %s, every code and scale equal to the checkpoint's\n", options->output.c_str(),
                format->name().c_str(), report::bytes_text(size.size_bytes).c_str());
    if (size.num_quantized)
      std::printf("quantized: %ld of %ld parameters, %.3f effective bits\n", size.num_quantized, size.num_parameters,
                  size.effective_bits);
    if (options->data.empty()) return;
    std::printf("perplexity before %.6f\n", perplexity_of(options->checkpoint, options->data));
    std::printf("perplexity after  %.6f\n", perplexity_of(options->output, options->data));
  });
}

}  // namespace satin::cli
