// satin eval: any model directory on any text, every number with its protocol.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/commands.h"
#include "cli/json_file.h"
#include "cli/open_model.h"
#include "cli/rank.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/nearest.h"
#include "data/text_source.h"
#include "dist/in_order.h"
#include "dist/together.h"
#include "eval/corpus.h"
#include "eval/protocol.h"
#include "eval/robustness.h"
#include "eval/smoothness.h"

namespace satin::cli {
namespace {

struct EvalOptions {
  std::string model, teacher, tasks = "perplexity", device = "auto", compute_dtype = "auto", kv_cache, kernel = "dense",
                              json;
  std::string record_template, dump_roots;
  std::vector<std::string> data, names;
  int64_t sequence_length = 1024, limit = 0, num_roots = 256, gpus = 1;
  uint64_t seed = 0;
};

/// The model under test and, with --teacher, what it is compared with.
struct Models {
  OpenModel student;
  std::optional<OpenModel> teacher;
  models::Decoder* teacher_decoder() const { return teacher ? teacher->decoder.get() : nullptr; }
};

std::vector<std::string> parse_tasks(const std::string& text) {
  static const std::vector<std::string> kTasks = {"perplexity", "choice", "annotations", "smoothness", "robustness"};
  std::vector<std::string> tasks;
  std::istringstream in(text);
  for (std::string task; std::getline(in, task, ',');) {
    if (std::find(kTasks.begin(), kTasks.end(), task) == kTasks.end())
      throw UserError(cat("--tasks: unknown task '", task, "'", did_you_mean(task, kTasks),
                          " Tasks: perplexity, choice, annotations, smoothness, robustness"));
    tasks.push_back(task);
  }
  return tasks;
}

bool compares(const std::string& task) { return task == "smoothness" || task == "robustness"; }

OpenModel open_teacher(const EvalOptions& options, const OpenModel& student) {
  OpenModel teacher = open_model(options.teacher, options.device, options.compute_dtype, /*kv_cache=*/"");
  if (teacher.tokenizer.vocab_size() != student.tokenizer.vocab_size())
    throw UserError(cat("--teacher: ", options.teacher, " has a tokenizer of ", teacher.tokenizer.vocab_size(),
                        " tokens, ", options.model, " one of ", student.tokenizer.vocab_size(),
                        "; only models with the same tokenizer can be compared token by token"));
  if (teacher.tokenizer.fingerprint() != student.tokenizer.fingerprint())
    log_warning(cat("the tokenizer.json of ", options.teacher, " and ", options.model,
                    " differ; the text is read with the latter, and ids are taken to mean the same"));
  return teacher;
}

nlohmann::json run_task(const std::string& task, const EvalOptions& options, const config::DataSource& source,
                        const Models& models, dist::Communicator& world) {
  models::Decoder& decoder = *models.student.decoder;
  const tokenizer::Tokenizer& tokenizer = models.student.tokenizer;
  const auto limit = static_cast<size_t>(options.limit);
  if (task == "choice")
    return eval::to_json(eval::choice(decoder, tokenizer, eval::read_questions(source, limit), {}, world), decoder);
  if (task == "annotations")
    return eval::to_json(eval::annotations(decoder, tokenizer, eval::read_documents(source, limit), {}, world),
                         decoder);

  const size_t max_tokens = limit * static_cast<size_t>(options.sequence_length);
  const std::vector<int32_t> tokens = eval::read_tokens(source, tokenizer, max_tokens);
  const std::string documents = eval::documents_protocol(source);
  if (task == "smoothness") {
    const eval::Smoothness result = eval::smoothness(decoder, models.teacher_decoder(), tokens,
                                                     {.sequence_length = options.sequence_length,
                                                      .limit = options.limit,
                                                      .num_tokens = tokenizer.vocab_size(),
                                                      .num_roots = options.num_roots,
                                                      .seed = options.seed},
                                                     world);
    if (world.rank() == 0 && !options.dump_roots.empty()) write_json_file(options.dump_roots, eval::dump_roots(result));
    return eval::to_json(result, decoder, documents);
  }
  if (task == "robustness")
    return eval::to_json(eval::robustness(decoder, models.teacher_decoder(), tokens,
                                          {.sequence_length = options.sequence_length,
                                           .limit = options.limit,
                                           .num_tokens = tokenizer.vocab_size(),
                                           .special_ids = tokenizer.special_ids(),
                                           .seed = options.seed},
                                          world),
                         decoder, documents);
  return eval::to_json(eval::perplexity(decoder, tokens, options.sequence_length, options.limit, {}, world), decoder,
                       documents);
}

void print(const std::string& text, const std::string& task, const nlohmann::json& result) {
  std::printf("%s %s:", text.c_str(), task.c_str());
  if (compares(task)) {
    std::printf("\n%s",
                task == "smoothness" ? eval::smoothness_table(result).c_str() : eval::robustness_table(result).c_str());
  } else {
    for (const auto& [key, value] : result.items())
      if (value.is_number_float())
        std::printf(" %s %.6g", key.c_str(), value.get<double>());
      else if (value.is_number())
        std::printf(" %s %s", key.c_str(), value.dump().c_str());
    std::printf("\n");
  }
  std::printf("  protocol %s\n", result["protocol"].dump().c_str());
}

/// Before anything is loaded.
void check_dump(const EvalOptions& options, const std::vector<std::string>& tasks) {
  if (options.dump_roots.empty()) return;
  const bool walks = std::find(tasks.begin(), tasks.end(), "smoothness") != tasks.end() && !options.teacher.empty();
  if (!walks || options.data.size() != 1 || options.num_roots == 0)
    throw UserError("--dump-roots: expected --tasks smoothness, a --teacher, one --data and --roots above 0");
}

std::vector<config::DataSource> parse_sources(const EvalOptions& options) {
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
  return sources;
}

Models open_models(const EvalOptions& options, const std::vector<std::string>& tasks) {
  Models models{open_model(options.model, options.device, options.compute_dtype, options.kv_cache, options.kernel), {}};
  if (options.teacher.empty()) return models;
  if (std::any_of(tasks.begin(), tasks.end(), compares))
    models.teacher = open_teacher(options, models.student);
  else
    log_warning(
        cat("--teacher is not used by --tasks ", options.tasks, "; smoothness and robustness compare with one"));
  return models;
}

/// As one of the ranks: all have the models and read a share of the text, the first prints and writes.
void evaluate(const EvalOptions& options, const std::vector<std::string>& tasks,
              const std::vector<config::DataSource>& sources, dist::Communicator& world) {
  dist::on_first(world, [&] {
    check_json_file(options.json);
    check_json_file(options.dump_roots);
  });
  std::optional<Models> models;
  dist::together(world, [&] { models.emplace(open_models(options, tasks)); });

  // One text and one task: a plain object; otherwise by text name, then by task.
  nlohmann::json all = nlohmann::json::object();
  for (const auto& source : sources) {
    const std::string name = data::source_name(source);
    for (const auto& task : tasks) {
      nlohmann::json result = run_task(task, options, source, *models, world);
      result["text"] = name;
      result["task"] = task;
      result["model"] = options.model;
      result["kind"] = models->student.model.kind;
      if (models->teacher && compares(task)) result["teacher"] = options.teacher;
      print(name, task, result);
      if (sources.size() == 1 && tasks.size() == 1)
        all = result;
      else
        all[name][task] = result;
    }
  }
  if (const uint64_t count = models->student.tokenizer.invalid_utf8_count())
    std::printf("%lu times invalid UTF-8 was replaced by U+FFFD\n", count);
  if (world.rank() == 0) write_json_file(options.json, all);
}

/// `settings`: the options as text.
void run(const EvalOptions& options, const std::string& settings) {
  const std::vector<std::string> tasks = parse_tasks(options.tasks);
  check_kernel(options.kernel);
  check_dump(options, tasks);
  const std::vector<config::DataSource> sources = parse_sources(options);
  start_ranks(options.device, options.gpus);
  install_interrupt_handlers();
  RankInputs inputs{.device = options.device, .configuration = settings, .folders = {options.model}};
  if (!options.teacher.empty()) inputs.folders.emplace_back(options.teacher);
  for (const auto& source : sources) inputs.files.emplace_back(source.path);
  as_rank(inputs, [&](const std::shared_ptr<dist::Communicator>& world, dist::Watchdog&) {
    evaluate(options, tasks, sources, *world);
  });
}

}  // namespace

void add_eval(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  auto* command = app.add_subcommand("eval", "evaluate a Hugging Face model, a checkpoint or an exported artefact");
  command->add_option("--model", options->model, "model directory")->required();
  command->add_option("--teacher", options->teacher,
                      "full-precision model directory that smoothness and robustness compare with");
  command->add_option("--data", options->data, "FILE[:FIELD] (.jsonl, .txt, .tokens, .bin); may be repeated")
      ->required();
  command->add_option("--name", options->names, "name of each --data in the results");
  command->add_option("--template", options->record_template,
                      "text of a record: \"Question: {question}\\nAnswer: {answer}\"");
  command->add_option("--tasks", options->tasks,
                      "perplexity, choice, annotations, smoothness, robustness (comma-separated)");
  command->add_option("--sequence-length", options->sequence_length, "tokens of a window")
      ->check(CLI::Range(2, 1 << 20));
  command->add_option("--limit", options->limit, "at most so many windows (documents, questions); 0: all")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seed", options->seed, "of decoding trees (smoothness) and perturbations (robustness)");
  command->add_option("--roots", options->num_roots, "decoding trees to estimate; 0: none")
      ->check(CLI::Range(0, 1 << 20));
  command->add_option("--dump-roots", options->dump_roots,
                      "write the trees' contexts, random draws and branches to this JSON file");
  command->add_option("--device", options->device, "auto, cpu or cuda");
  command->add_option("--kv-cache", options->kv_cache,
                      "keys and values rounded to int8 or int4, a scale a token and head; none; default: as trained");
  command->add_option("--kernel", options->kernel,
                      "dense (the default: windows have many rows, where codes gain no time), low-bit (quantized "
                      "weights stay codes: less memory), or auto");
  command->add_option("--compute-dtype", options->compute_dtype,
                      "auto (bfloat16 on CUDA, float32 on the CPU), float32, bfloat16, float64");
  add_gpus_option(*command, options->gpus);
  command->add_option("--json", options->json, "write the results to this file");
  command->footer(
      "Example: satin eval --model runs/x/export/compressed-tensors --data valid.jsonl:text --json result.json\n"
      "         satin eval --model runs/x/export/hf --teacher Llama-3.2-1B --data valid.jsonl --tasks "
      "smoothness,robustness --limit 64");
  command->callback([options, command] { run(*options, command->config_to_str(/*default_also=*/true)); });
}

}  // namespace satin::cli
