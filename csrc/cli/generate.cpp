// satin generate: text from any model directory.
#include "generate/generate.h"

#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/open_model.h"
#include "core/error.h"

namespace satin::cli {
namespace {

struct Options {
  std::string model, prompt, device = "auto", compute_dtype = "auto", kv_cache, kernel = "dense";
  generate::GenerateOptions generate;
};

void run(const Options& options) {
  if (options.kernel != "dense") throw UserError(cat("--kernel: expected dense, found '", options.kernel, "'"));
  const auto [model, tokenizer, decoder] =
      open_model(options.model, options.device, options.compute_dtype, options.kv_cache);
  std::vector<int32_t> prompt = tokenizer.encode(options.prompt);
  if (tokenizer.bos_id() >= 0) prompt.insert(prompt.begin(), tokenizer.bos_id());
  generate::GenerateOptions generate = options.generate;
  generate.stop_ids = generate::stop_ids(model.config, tokenizer);
  std::printf("%s", options.prompt.c_str());
  generate::generate(*decoder, tokenizer, prompt, generate, [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  });
  std::printf("\n");
}

}  // namespace

void add_generate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "generate", "continue a prompt with a Hugging Face model, a checkpoint or an exported artefact");
  command->add_option("--model", options->model, "model directory")->required();
  command->add_option("--prompt", options->prompt, "text to continue")->required();
  command->add_option("--max-new-tokens", options->generate.max_new_tokens, "tokens to add at most");
  command->add_option("--temperature", options->generate.sampling.temperature, "0: always the most likely token");
  command->add_option("--top-k", options->generate.sampling.top_k, "sample from the k most likely tokens; 0: all");
  command->add_option("--top-p", options->generate.sampling.top_p,
                      "sample from the most likely tokens that hold this probability");
  command->add_option("--seed", options->generate.sampling.seed, "of the draws");
  command->add_option("--kernel", options->kernel, "dense");
  command->add_option("--device", options->device, "auto, cpu or cuda");
  command->add_option("--kv-cache", options->kv_cache,
                      "keys and values rounded to int8 or int4, a scale a token and head; none; default: as trained");
  command->add_option("--compute-dtype", options->compute_dtype, "auto, float32, bfloat16 or float64");
  command->footer(
      "Example: satin generate --model configs/quickstart/teacher --prompt \"My dear Watson,\" --max-new-tokens 60");
  command->callback([options] { run(*options); });
}

}  // namespace satin::cli
