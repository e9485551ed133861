// satin eval: any model directory on any text, every number with its protocol.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/commands.h"
#include "cli/json_file.h"
#include "cli/open_model.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/nearest.h"
#include "data/text_source.h"
#include "eval/corpus.h"
#include "eval/protocol.h"

namespace satin::cli {
namespace {

struct Options {
  std::string model, tasks = "perplexity", device = "auto", compute_dtype = "auto", kv_cache, json, record_template;
  std::vector<std::string> data, names;
  int64_t sequence_length = 1024, limit = 0;
};

std::vector<std::string> parse_tasks(const std::string& text) {
  static const std::vector<std::string> kTasks = {"perplexity", "choice", "annotations"};
  std::vector<std::string> tasks;
  std::istringstream in(text);
  for (std::string task; std::getline(in, task, ',');) {
    if (std::find(kTasks.begin(), kTasks.end(), task) == kTasks.end())
      throw UserError(cat("--tasks: unknown task '", task, "'", did_you_mean(task, kTasks),
                          " Tasks: perplexity, choice, annotations"));
    tasks.push_back(task);
  }
  return tasks;
}

nlohmann::json run_task(const std::string& task, const Options& options, const config::DataSource& source,
                        models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer) {
  const auto limit = static_cast<size_t>(options.limit);
  if (task == "perplexity") {
    const size_t max_tokens = limit * static_cast<size_t>(options.sequence_length);
    return eval::to_json(eval::perplexity(decoder, eval::read_tokens(source, tokenizer, max_tokens),
                                          options.sequence_length, options.limit),
                         decoder, eval::documents_protocol(source));
  }
  if (task == "choice")
    return eval::to_json(eval::choice(decoder, tokenizer, eval::read_questions(source, limit)), decoder);
  return eval::to_json(eval::annotations(decoder, tokenizer, eval::read_documents(source, limit)), decoder);
}

void run(const Options& options) {
  const std::vector<std::string> tasks = parse_tasks(options.tasks);
  if (!options.names.empty() && options.names.size() != options.data.size())
    throw UserError(
        cat("--name: expected one for each --data (", options.data.size(), "), found ", options.names.size()));
  std::vector<config::DataSource> sources;
  for (size_t i = 0; i < options.data.size(); ++i)
    sources.push_back(eval::parse_data_argument("--data", options.data[i], options.record_template,
                                                options.names.empty() ? "" : options.names[i]));

  std::set<std::string> names;
  for (const auto& source : sources)
    if (!names.insert(data::source_name(source)).second)
      throw UserError(
          cat("--data: two texts are called '", data::source_name(source), "'; tell them apart with --name"));
  check_json_file(options.json);

  install_interrupt_handlers();
  const auto [model, tokenizer, decoder] =
      open_model(options.model, options.device, options.compute_dtype, options.kv_cache);

  // One text and one task: a plain object; otherwise by text name, then by task.
  nlohmann::json all = nlohmann::json::object();
  for (const auto& source : sources) {
    const std::string name = data::source_name(source);
    for (const auto& task : tasks) {
      nlohmann::json result = run_task(task, options, source, *decoder, tokenizer);
      result["model"] = options.model;
      result["kind"] = model.kind;
      std::printf("%s %s:", name.c_str(), task.c_str());
      for (const auto& [key, value] : result.items())
        if (value.is_number_float())
          std::printf(" %s %.6g", key.c_str(), value.get<double>());
        else if (value.is_number())
          std::printf(" %s %s", key.c_str(), value.dump().c_str());
      std::printf("\n  protocol %s\n", result["protocol"].dump().c_str());
      if (sources.size() == 1 && tasks.size() == 1)
        all = result;
      else
        all[name][task] = result;
    }
  }
  if (tokenizer.invalid_utf8_count())
    std::printf("%lu times invalid UTF-8 was replaced by U+FFFD\n", tokenizer.invalid_utf8_count());
  write_json_file(options.json, all);
}

}  // namespace

void add_eval(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("eval", "evaluate a Hugging Face model, a checkpoint or an exported artefact");
  command->add_option("--model", options->model, "model directory")->required();
  command->add_option("--data", options->data, "FILE[:FIELD] (.jsonl, .txt, .tokens, .bin); may be repeated")
      ->required();
  command->add_option("--name", options->names, "name of each --data in the results");
  command->add_option("--template", options->record_template,
                      "text of a record: \"Question: {question}\\nAnswer: {answer}\"");
  command->add_option("--tasks", options->tasks, "perplexity, choice, annotations (comma-separated)");
  command->add_option("--sequence-length", options->sequence_length, "tokens of a perplexity window")
      ->check(CLI::Range(2, 1 << 20));
  command->add_option("--limit", options->limit, "at most so many windows (documents, questions); 0: all")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--device", options->device, "auto, cpu or cuda");
  command->add_option("--kv-cache", options->kv_cache,
                      "keys and values rounded to int8 or int4, a scale a token and head; none; default: as trained");
  command->add_option("--compute-dtype", options->compute_dtype,
                      "auto (bfloat16 on CUDA, float32 on the CPU), float32, bfloat16, float64");
  command->add_option("--json", options->json, "write the results to this file");
  command->footer(
      "Example: satin eval --model runs/x/export/compressed-tensors --data valid.jsonl:text --json result.json");
  command->callback([options] { run(*options); });
}

}  // namespace satin::cli
