// satin generate: text from any model directory.
#include "generate/generate.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>

#include "cli/commands.h"
#include "cli/open_model.h"
#include "cli/token_output.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "data/token_file.h"
#include "generate/corpus.h"

namespace satin::cli {
namespace {

/// Prompts that are continued at once.
constexpr size_t kMostTogether = 16;

struct Options {
  std::string model, prompts_file, device = "auto", compute_dtype = "auto", kv_cache, kernel = "auto";
  std::vector<std::string> prompts;
  generate::GenerateOptions generate;
  std::string output;
  int64_t num_texts = 64;
  bool force = false;
};

/// Those of --prompt, then the lines of --prompts that are not empty.
std::vector<std::string> read_prompts(const Options& options) {
  std::vector<std::string> prompts = options.prompts;
  if (!options.prompts_file.empty()) {
    std::ifstream file(options.prompts_file);
    if (!file) throw UserError(cat("--prompts: cannot read ", options.prompts_file));
    for (std::string line; std::getline(file, line);) {
      if (line.ends_with('\r')) line.pop_back();
      if (!line.empty()) prompts.push_back(line);
    }
  }
  if (prompts.empty())
    throw UserError(options.prompts_file.empty() ? std::string("expected --prompt TEXT or --prompts FILE")
                                                 : cat("--prompts: ", options.prompts_file, " has no lines"));
  return prompts;
}

void run(const Options& options) {
  const std::vector<std::string> texts = read_prompts(options);
  const auto [model, tokenizer, decoder] =
      open_model(options.model, options.device, options.compute_dtype, options.kv_cache, options.kernel);
  generate::GenerateOptions generate = options.generate;
  generate.stop_ids = generate::stop_ids(model.config, tokenizer);
  std::vector<std::vector<int32_t>> prompts;
  for (const auto& text : texts) {
    prompts.push_back(tokenizer.encode(text));
    if (tokenizer.bos_id() >= 0) prompts.back().insert(prompts.back().begin(), tokenizer.bos_id());
  }
  if (texts.size() == 1) {
    std::printf("%s", texts[0].c_str());
    generate::generate(*decoder, tokenizer, prompts[0], generate, [](std::string_view text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    });
    std::printf("\n");
    return;
  }
  for (size_t first = 0; first < texts.size(); first += kMostTogether) {
    const size_t last = std::min(texts.size(), first + kMostTogether);
    const auto all =
        generate::generate(*decoder, tokenizer,
                           std::vector<std::vector<int32_t>>(prompts.begin() + static_cast<std::ptrdiff_t>(first),
                                                             prompts.begin() + static_cast<std::ptrdiff_t>(last)),
                           generate);
    for (size_t i = first; i < last; ++i)
      std::printf("== %zu\n%s%s\n", i + 1, texts[i].c_str(), all[i - first].text.c_str());
    std::fflush(stdout);
  }
}

/// Texts of the model's own into a token file.
void run_corpus(const Options& options, const CLI::App& command) {
  if (!options.prompts.empty() || !options.prompts_file.empty())
    throw UserError("--output: texts begin with tokens drawn at random; expected no --prompt and no --prompts");
  check_new_token_file("--output", options.output, options.force);
  install_interrupt_handlers();
  const auto [model, tokenizer, decoder] =
      open_model(options.model, options.device, options.compute_dtype, options.kv_cache, options.kernel);
  generate::CorpusOptions corpus;
  corpus.num_texts = options.num_texts;
  const auto given = [&](const char* name) { return command.count(name) > 0; };
  const generate::GenerateOptions defaults = corpus.generate;
  corpus.generate = options.generate;
  if (!given("--max-new-tokens")) corpus.generate.max_new_tokens = defaults.max_new_tokens;
  if (!given("--temperature")) corpus.generate.sampling.temperature = defaults.sampling.temperature;
  if (!given("--greedy-first")) corpus.generate.greedy_first = defaults.greedy_first;
  corpus.generate.stop_ids = generate::stop_ids(model.config, tokenizer);
  data::TokenFileWriter file(options.output, {.vocab_size = static_cast<uint64_t>(tokenizer.vocab_size()),
                                              .tokenizer_fingerprint = tokenizer.fingerprint()});
  generate::generate_corpus(*decoder, tokenizer, corpus, [&](std::span<const int32_t> ids) { file.add_document(ids); });
  file.finish();
  std::printf("%s: %lu documents, %lu tokens\n", options.output.c_str(), file.num_documents(), file.num_tokens());
}

}  // namespace

void add_generate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "generate", "continue a prompt with a Hugging Face model, a checkpoint or an exported artefact");
  command->add_option("--model", options->model, "model directory")->required();
  command->add_option("--prompt", options->prompts, "text to continue; may be repeated")->take_all()->expected(1);
  command->add_option("--prompts", options->prompts_file,
                      "file with a prompt a line; several prompts are continued together, each as it would be alone, "
                      "and printed after a line \"== NUMBER\"");
  command->add_option("--max-new-tokens", options->generate.max_new_tokens,
                      "tokens to add at most; with --output 512 unless given");
  command->add_option("--temperature", options->generate.sampling.temperature,
                      "0: always the most likely token; with --output 1 unless given");
  command->add_option("--top-k", options->generate.sampling.top_k, "sample from the k most likely tokens; 0: all");
  command->add_option("--top-p", options->generate.sampling.top_p,
                      "sample from the most likely tokens that hold this probability");
  command->add_option("--seed", options->generate.sampling.seed, "of the draws");
  command->add_option(
      "--kernel", options->kernel,
      "dense, low-bit (quantized weights stay codes), or auto: low-bit where the model is quantized and "
      "the device has kernels for it");
  command->add_option("--device", options->device, "auto, cpu or cuda");
  command->add_option("--kv-cache", options->kv_cache,
                      "keys and values held as int8 or int4, a scale a token and head; none; default: as trained");
  command->add_option("--compute-dtype", options->compute_dtype, "auto, float32, bfloat16 or float64");
  auto* output = command->add_option("--output", options->output,
                                     "token file (.tokens) with texts that the model makes up, each from a token drawn "
                                     "at random: data.train without data");
  command->add_option("--texts", options->num_texts, "with --output: how many")
      ->check(CLI::PositiveNumber)
      ->needs(output);
  command
      ->add_option("--greedy-first", options->generate.greedy_first,
                   "with --output: new tokens that are the most likely ones before sampling begins; 4 unless given")
      ->check(CLI::NonNegativeNumber)
      ->needs(output);
  command->add_flag("--force", options->force, "replace an existing output")->needs(output);
  command->footer(
      "Example: satin generate --model configs/quickstart/teacher --prompt \"My dear Watson,\" --max-new-tokens 60");
  command->callback([options, command] { options->output.empty() ? run(*options) : run_corpus(*options, *command); });
}

}  // namespace satin::cli
