#include "train/dry_run.h"

#include <cstdio>

#include "core/error.h"
#include "data/text_source.h"
#include "data/tokenise.h"
#include "eval/corpus.h"
#include "export/format.h"
#include "losses/objective.h"
#include "ops/device.h"
#include "train/gradient_penalty.h"
#include "train/memory_estimate.h"
#include "train/models.h"
#include "train/neighbours.h"
#include "train/quantization_table.h"
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

}  // namespace

void dry_run(const config::Config& config, const Resume& resume) {
  RunDirectory::check(config.train.output_dir, resume);
  const at::Device device = ops::resolve_device(config.train.device);
  const at::ScalarType compute_dtype = ops::resolve_compute_dtype(config.train.compute_dtype, device);
  check_schedule(config);
  const auto tokenizer = tokenizer::Tokenizer::load(config.model.path);
  const Student student = build_student(config, student_options(at::kCPU, compute_dtype), {});
  const models::ModelConfig& model = student.decoder->config();
  check_vocabulary(tokenizer, model, config.model.path);
  check_exports(config, student);
  const losses::Objective objective(config.loss, tokenizer.vocab_size());  // for their errors
  for (const auto* sources : {&config.data.train, &config.data.valid})
    for (const auto& source : *sources) check_readable(source, tokenizer);
  if (config.quantization)
    std::printf("%s\n",
                quantization_text(quant::quantization_table(*student.registry, student.decoder->parameters())).c_str());

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
  std::printf("%ld steps of %ld tokens, %ld tokens in all, on %s in %s\n", steps, tokens, steps * tokens,
              ops::device_name(device).c_str(), c10::toString(compute_dtype));
  const losses::Neighbourhood neighbourhood = build_neighbourhood(config, tokenizer, model);  // for its errors
  if (neighbourhood.enabled())
    std::printf("%s\n", neighbourhood_text(effective_neighbourhood(config.loss), steps).c_str());
  if (penalises(config.loss.lgr)) {
    const GradientPenalty penalty(*student.decoder, *student.registry, config.loss.lgr,
                                  config.loss.chunk_tokens);  // for its errors
    std::printf("%s\n", penalty_text(config.loss.lgr, tokens / config.train.sequence_length, steps).c_str());
  }
  std::printf(
      "%s\n",
      memory_text(estimate_memory(config, *student.decoder, teacher ? &*teacher : nullptr, compute_dtype)).c_str());
}

}  // namespace satin::train
