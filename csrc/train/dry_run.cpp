#include "train/dry_run.h"

#include <ATen/Context.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/text_source.h"
#include "data/tokenise.h"
#include "eval/corpus.h"
#include "export/format.h"
#include "losses/objective.h"
#include "ops/device.h"
#include "ptq/quantize_blocks.h"
#include "report/throughput.h"
#include "train/calibrate.h"
#include "train/cluster_plan.h"
#include "train/gradient_penalty.h"
#include "train/models.h"
#include "train/neighbours.h"
#include "train/quantization_table.h"
#include "train/quantize_memory.h"
#include "train/run_length.h"
#include "train/stored_teacher.h"

namespace satin::train {

namespace {

/// The first record must read; a token file must belong to this tokenizer.
void check_readable(const config::DataSource& source, const tokenizer::Tokenizer& tokenizer) {
  const auto kind = data::source_kind(source);
  if (kind == data::SourceKind::kTokens) return data::check_tokenizer(data::TokenFile(source.path), tokenizer);
  if (kind == data::SourceKind::kRawTokens) return void(eval::read_tokens(source, tokenizer, 1));
  data::Document document;
  if (!data::TextSource(source).next(document)) throw UserError(cat(source.path, ": holds no documents"));
}

/// GPUs as this machine has, or as the model's constants are of.
Job job_of(const DryRunOptions& options) {
  Job job;
  job.world_size = options.world_size;
  job.gpus_per_host = options.gpus_per_host;
  std::string name = "H100";
  double memory_gib = 80;
  if (at::hasCUDA()) {
    name = ops::device_name({at::kCUDA, 0});
    memory_gib = static_cast<double>(ops::total_memory_bytes({at::kCUDA, 0})) / (1 << 30);
    if (const auto peak = report::peak_flops_per_second(name)) job.cluster.peak_flops_per_s = *peak;
  }
  if (options.device_memory_gib > 0) memory_gib = options.device_memory_gib;
  if (options.host_bus_gb_s > 0) job.cluster.host_bus_bytes_per_s = options.host_bus_gb_s * 1e9;
  if (options.network_gbit_s > 0) job.cluster.network_bytes_per_s = options.network_gbit_s * 1e9 / 8;
  job.device_memory_bytes = static_cast<int64_t>(memory_gib * (1 << 30));
  std::printf("GPUs: %s, %s GiB%s\n", name.c_str(), fixed(memory_gib, 1).c_str(),
              at::hasCUDA() ? "" : " (this machine has none: assumed)");
  return job;
}

/// What any run of these needs to be right; prints the quantization table.
void check_run(const config::Config& config, const tokenizer::Tokenizer& tokenizer, const Student& student) {
  check_vocabulary(tokenizer, student.decoder->config(), config.model.path);
  check_exports(config, student);
  for (const auto* sources : {&config.data.train, &config.data.valid})
    for (const auto& source : *sources) check_readable(source, tokenizer);
  if (config.quantization)
    std::printf("%s\n",
                quantization_text(quant::quantization_table(*student.registry, student.decoder->parameters())).c_str());
}

}  // namespace

nlohmann::json dry_run(const config::Config& config, const Resume& resume, const DryRunOptions& options) {
  const bool of_many = options.world_size > 0;
  if (of_many) check_hosts(options.world_size, options.gpus_per_host);
  RunDirectory::check(config.train.output_dir, resume);
  const at::Device device = of_many ? at::Device(at::kCUDA) : ops::resolve_device(config.train.device);
  const at::ScalarType compute_dtype = ops::resolve_compute_dtype(config.train.compute_dtype, device);
  check_schedule(config);
  const auto tokenizer = tokenizer::Tokenizer::load(config.model.path);
  const Student student = of_many ? student_shapes(config, compute_dtype)
                                  : build_student(config, student_options(at::kMeta, compute_dtype), {});
  const models::ModelConfig& model = student.decoder->config();
  const losses::Objective objective(config.loss, tokenizer.vocab_size());  // for their errors
  check_run(config, tokenizer, student);

  std::optional<models::ModelConfig> teacher;
  open_teacher_cache(config, tokenizer, model.vocab_size);  // for its errors
  if (runs_teacher(config)) {
    teacher = models::load_model_config(teacher_path(config));
    if (teacher->vocab_size != model.vocab_size)
      throw UserError(
          cat("teacher.path: a vocabulary of ", teacher->vocab_size, ", the student's is ", model.vocab_size));
    check_hidden_states(config, model, *teacher);
  }
  const int64_t steps = total_steps(config.train);
  const int64_t tokens =
      config.train.micro_batch_size * config.train.gradient_accumulation_steps * config.train.sequence_length;
  const std::string where = of_many ? cat(options.world_size, " GPUs") : ops::device_name(device);
  std::printf("%ld steps of %ld tokens, %ld tokens in all, on %s in %s\n", steps, tokens, steps * tokens, where.c_str(),
              c10::toString(compute_dtype));
  const losses::Neighbourhood neighbourhood = build_neighbourhood(config, tokenizer, model);  // for its errors
  if (neighbourhood.enabled())
    std::printf("%s\n", neighbourhood_text(effective_neighbourhood(config.loss), steps).c_str());
  if (penalises(config.loss.lgr)) {
    const GradientPenalty penalty(*student.decoder, *student.registry, config.loss.lgr,
                                  config.loss.chunk_tokens);  // for its errors
    std::printf("%s\n", penalty_text(config.loss.lgr, tokens / config.train.sequence_length, steps).c_str());
  }
  const models::ModelConfig* frozen = teacher ? &*teacher : nullptr;
  if (of_many) {
    const Job job = job_of(options);
    const std::vector<Plan> plans = plan_strategies(config, frozen, compute_dtype, job);
    std::printf("%s\n", plan_text(plans, config, job).c_str());
    return plan_json(plans, config, job);
  }
  std::printf("%s\n", memory_text(estimate_memory(config, *student.decoder, frozen, compute_dtype, device)).c_str());
  return nullptr;
}

void dry_run_quantize(const config::Config& config, const Resume& resume) {
  RunDirectory::check(config.train.output_dir, resume);
  const at::Device device = ops::resolve_device(config.train.device);
  const at::ScalarType compute_dtype = ops::resolve_compute_dtype(config.train.compute_dtype, device);
  const auto tokenizer = tokenizer::Tokenizer::load(config.model.path);
  const Student student = build_student(config, student_options(at::kMeta, compute_dtype), {});
  check_run(config, tokenizer, student);
  const int64_t sequences = config.quantization->calibration_sequences, length = config.train.sequence_length;
  const std::string text = ptq::walks_blocks(config.ptq) || needs_calibration(student)
                               ? cat(" of ", sequences, " sequences of ", length, " tokens")
                               : " without text";
  std::printf("%s%s, on %s in %s\n", config.ptq.method.c_str(), text.c_str(), ops::device_name(device).c_str(),
              c10::toString(compute_dtype));
  std::printf("%s\n", memory_text(estimate_quantize_memory(config, student, compute_dtype, device)).c_str());
}

}  // namespace satin::train
