// How a run begins: everything is built, from the newest checkpoint when resuming.
#include <nlohmann/json.hpp>

#include "config/config.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "dist/in_order.h"
#include "dist/together.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "io/shared_directory.h"
#include "ops/device.h"
#include "train/calibrate.h"
#include "train/neighbours.h"
#include "train/quantization_table.h"
#include "train/run_length.h"
#include "train/sharing.h"
#include "train/stored_teacher.h"
#include "train/trainer.h"
#include "train/training_data.h"

namespace satin::train {
namespace {

/// The run's directory, made by rank 0.
RunDirectory open_run_directory(const fs::path& path, const Resume& resume, dist::Communicator& world) {
  dist::on_first(world, [&] { RunDirectory(path, resume); });
  io::check_shared(path, world);
  return RunDirectory(path, world.rank() == 0 ? resume : Resume{true, {}});  // the first has looked
}

/// Lines of the stored config that differ from the new one, for the log.
void warn_about_changes(const std::string& before, const std::string& after) {
  std::istringstream old_lines(before), new_lines(after);
  for (std::string a, b; std::getline(old_lines, a) && std::getline(new_lines, b);)
    if (a != b) log_warning(cat("resuming with a changed config:", a, "  ->", b));
}

}  // namespace

Trainer::Trainer(const config::Config& config, const Resume& resume, std::shared_ptr<dist::Communicator> world,
                 dist::Watchdog* watchdog)
    : config_(config),
      device_(ops::resolve_device(config.train.device)),
      compute_dtype_(ops::resolve_compute_dtype(config.train.compute_dtype, device_)),
      watchdog_(watchdog),
      sharing_(make_sharing(config, std::move(world), device_, compute_dtype_)),
      directory_(open_run_directory(config.train.output_dir, resume, *sharing_.world)),
      tokenizer_(tokenizer::Tokenizer::load(config.model.path)),
      total_steps_(total_steps(config.train)) {
  if (speaks()) log_to_file(directory_.log());
  ops::configure_numerics(config.train.deterministic);
  std::optional<fs::path> checkpoint;
  if (resume.enabled) checkpoint = resume.checkpoint ? resume.checkpoint : io::latest_checkpoint(directory_.path());
  if (resume.enabled && !checkpoint) log_info("no checkpoint yet: starting from the beginning");

  io::Manifest manifest;
  if (checkpoint) {
    manifest = io::verify_checkpoint(*checkpoint, "", *sharing_.world);
    log_info(cat("resuming from ", checkpoint->string(), ", step ", manifest.step));
    warn_about_changes(satin::read_file(*checkpoint / "config.yaml"), config::dump(config_));
  }
  check_schedule(config_);
  const nn::BuildOptions whole = student_options(device_, compute_dtype_);
  nn::BuildOptions options = whole;
  options.shard = {sharing_.shards->rank(), sharing_.shards->size()};
  if (config_.quantization)  // The last step's stage: what is saved belongs to it. The next step enters its own.
    stage_ = quant::stage_at(*config_.quantization, std::max<int64_t>(0, manifest.step - 1), total_steps_);
  dist::together(*sharing_.world,  // of a damaged value only those know that read its rows
                 [&] { student_ = build_student(config_, options, checkpoint, stage_); });
  const models::ModelConfig& model = student_.decoder->config();
  check_vocabulary(tokenizer_, model, config_.model.path);
  const auto table = quant::quantization_table(*student_.registry, student_.decoder->parameters());
  if (config_.quantization) log_info(quantization_text(table));
  check_exports(config_, student_);
  validation_ = std::make_unique<Validation>(config_, tokenizer_);

  objective_ = std::make_unique<losses::Objective>(config_.loss, tokenizer_.vocab_size());
  neighbourhood_ = std::make_unique<losses::Neighbourhood>(build_neighbourhood(config_, tokenizer_, model));
  if (neighbourhood_->enabled()) log_info(neighbourhood_text(effective_neighbourhood(config_.loss), total_steps_));
  if (runs_teacher(config_)) teacher_ = build_teacher(config_, whole, model);
  if (teacher_ && sharing_.splits_teacher) split_teacher_ = std::make_unique<SplitTeacher>(*teacher_, *sharing_.shards);
  const int64_t samples_per_step = config_.train.micro_batch_size * config_.train.gradient_accumulation_steps;
  const data::StepShare share{samples_per_step, config_.train.micro_batch_size, sharing_.world->rank(),
                              sharing_.world->size()};

  dist::first_then_others(*sharing_.world, [&] {  // the first tokenises what is not yet
    dataset_ = std::make_unique<data::Dataset>(open_training_data(config_, tokenizer_, directory_.tokens()));
  });
  if (auto cache = open_teacher_cache(config_, tokenizer_, model.vocab_size)) dataset_->attach(std::move(cache));
  for (const auto& line : dataset_->mixture_summary(static_cast<uint64_t>(total_steps_ * samples_per_step)))
    log_info(line);

  const StepOptions step{.chunk_tokens = config_.loss.chunk_tokens,
                         .damping = config_.quantization ? config_.quantization->damping : 0,
                         .recompute = config_.train.activation_checkpointing};
  step_ = std::make_unique<TrainingStep>(*student_.decoder, *student_.registry, teacher_.get(), *objective_,
                                         *neighbourhood_, step, sharing_);
  if (!checkpoint && config_.model.quantized.empty() && stage_.on && needs_calibration(student_))
    calibrate(config_, student_, *dataset_, whole_weights(), *sharing_.world);
  agree_on_parameters();
  if (penalises(config_.loss.lgr)) {
    penalty_ = std::make_unique<GradientPenalty>(*student_.decoder, *student_.registry, config_.loss.lgr,
                                                 config_.loss.chunk_tokens, sharing_, share.own().first);
    log_info(penalty_text(config_.loss.lgr, samples_per_step, total_steps_));
  }
  optimizer_ = std::make_unique<optim::AdamW>(student_.decoder->parameters().all(), config_.optimizer);
  if (checkpoint) load_state(*checkpoint, manifest);
  if (stage_.on) store_keys_and_values();
  micro_batches_per_step_ = share.num_micro_batches();
  loader_ = std::make_unique<data::Loader>(*dataset_, data::Loader::Options{share, device_.is_cuda()}, position_);
  if (config_.logging.quantizers_every_n_steps > 0 && !student_.registry->modules().empty())
    health_ = std::make_unique<quant::HealthMonitor>(*student_.registry);
  if (speaks()) {
    write_file_atomically(directory_.config(), config::dump(config_));
    write_file_atomically(directory_.quantization_table(), quantization_json(table).dump(1) + "\n");
    open_logs(checkpoint.has_value());
  }
  peak_flops_ = report::peak_flops_per_second(ops::device_name(device_));
}

void Trainer::agree_on_parameters() {
  for (const nn::Parameter& parameter : student_.decoder->parameters().all())
    (parameter.is_split() ? sharing_.replicas : sharing_.world)->broadcast(parameter.value.detach(), 0).wait();
  step_->parameters_changed();
}

void Trainer::load_state(const fs::path& checkpoint, const io::Manifest& manifest) {
  const io::SafetensorsFile state(checkpoint / "optimizer.safetensors");
  optimizer_->load_state([&](const std::string& name) {
    if (!state.tensors().contains(name)) return at::Tensor();
    const nn::Parameter* parameter = student_.decoder->parameters().find(name.substr(0, name.rfind('.')));
    if (!parameter || !parameter->is_split() || state.tensors().at(name).shape.empty()) return state.tensor(name);
    return state.rows(name, parameter->first_row, parameter->value.size(0));
  });
  position_ = data::Position::from_json(manifest.state.at("position"), checkpoint.string());
  if (penalty_ && manifest.state.contains("lgr")) penalty_->weight().load_state(manifest.state["lgr"]);
  steps_done_ = manifest.step;
  if (steps_done_ > total_steps_)
    throw UserError(cat(checkpoint.string(), " is at step ", steps_done_, ", the config ends at step ", total_steps_,
                        ": raise train.max_steps or train.max_tokens"));
  std::error_code ignored;
  if (fs::equivalent(checkpoint.parent_path(), directory_.path() / "checkpoints", ignored)) last_saved_ = steps_done_;
  tokens_done_ = manifest.tokens;
}

void Trainer::open_logs(bool continues) {
  const int64_t after = continues ? steps_done_ : -1;
  metrics_ = std::make_unique<report::MetricsLog>(directory_.metrics(), after);
  if (health_) quantizer_log_ = std::make_unique<report::MetricsLog>(directory_.quantizer_health(), after);
  if (config_.logging.tensorboard) tensorboard_ = std::make_unique<report::TensorBoardWriter>(directory_.path(), after);
}

}  // namespace satin::train
