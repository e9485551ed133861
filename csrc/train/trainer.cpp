#include "train/trainer.h"

#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "dist/together.h"
#include "io/checkpoint.h"
#include "ops/device.h"
#include "ops/host_value.h"
#include "optim/clip.h"
#include "optim/schedule.h"
#include "quant/held_weights.h"
#include "report/progress.h"
#include "train/calibrate.h"
#include "train/finish.h"
#include "train/stored_teacher.h"

namespace satin::train {
namespace {

/// Losses of this process -> of all, in their own memory: once for a step.
void sum_losses(dist::Communicator& world, StepResult& result) {
  if (world.size() == 1) return;
  std::vector<at::Tensor> values{result.total};
  for (const auto& [name, value] : result.losses) values.push_back(value);
  std::vector<at::Tensor> sums = dist::ListReduce(world, values, result.total.scalar_type()).finish();
  result.total = sums[0];
  size_t next = 1;
  for (auto& [name, value] : result.losses) value = sums[next++];
}

}  // namespace

Trainer::~Trainer() {
  checkpoints_.reset();  // what it has to say is for the log
  close_log_file();
}

void Trainer::profile_steps() {
  constexpr int64_t kNeeded = StepProfile::kFirst + StepProfile::kSteps;
  if (total_steps_ - steps_done_ < kNeeded)
    throw UserError(cat("--profile: expected a run with at least ", kNeeded, " steps to go, found ",
                        total_steps_ - steps_done_, ": raise train.max_steps"));
  profile_ = std::make_unique<StepProfile>(device_, directory_.trace(), directory_.profile());
}

void Trainer::run() {
  log_info(
      cat("training ", total_steps_, " steps of ",
          config_.train.micro_batch_size * config_.train.gradient_accumulation_steps * config_.train.sequence_length,
          " tokens on ", ops::device_name(device_)));
  ops::reset_peak_memory(device_);
  if (health_) health_->measure(sharing_.shards.get());  // what later measurements compare with
  rate_.mark(now_s(), 0);
  if (watchdog_) watchdog_->resume();
  while (steps_done_ < total_steps_) {
    if (watchdog_) watchdog_->step(steps_done_ + 1);
    const quant::Stage stage = next_stage();
    const bool begins_stage = stage != stage_;
    if (begins_stage) {
      if (const int signal = agreed_signal()) stop(signal);  // what is saved belongs to the last step's stage
      try {
        enter_stage(stage);
      } catch (const InterruptedError&) {  // while calibrating: what was trained is saved as it was
        quant::enter(*student_.registry, stage_, /*keep_range=*/false);
        save(steps_done_, /*wait=*/true);
        throw;
      }
    }
    if (profile_) profile_->begin_step();
    if (!train_step(steps_done_, /*may_stop=*/!begins_stage)) stop(agreed_signal());
    if (profile_) profile_->end_step();
    ++steps_done_;
    const bool due = config_.checkpoint.every_n_steps > 0 && steps_done_ % config_.checkpoint.every_n_steps == 0;
    if (due && steps_done_ < total_steps_) save(steps_done_, /*wait=*/!config_.checkpoint.asynchronous);
    const bool evaluates = config_.eval.every_n_steps > 0 && steps_done_ % config_.eval.every_n_steps == 0;
    if (evaluates && steps_done_ < total_steps_) {
      try {
        evaluate_live(steps_done_);
      } catch (const InterruptedError&) {  // the next step will not begin
      }
    }
    if (health_ && stage_.on && steps_done_ % config_.logging.quantizers_every_n_steps == 0)
      log_quantizers(steps_done_);
  }
  if (const int signal = agreed_signal()) stop(signal);
  save(total_steps_, /*wait=*/true);
  if (watchdog_) watchdog_->pause();  // what follows takes as long as it takes
  end_progress();
  log_info(cat("trained ", tokens_done_, " tokens; peak memory ", report::bytes_text(ops::peak_memory_bytes(device_))));
  if (const auto step_time = step_time_.mean(); !step_time.empty()) log_info(step_time_text(step_time));
  health_.reset();
  quantizer_log_.reset();
  metrics_.reset();  // closed; and nothing of training stays in memory for what follows
  checkpoints_.reset();
  loader_.reset();
  optimizer_.reset();
  step_.reset();
  penalty_.reset();
  student_.decoder.reset();
  split_teacher_.reset();
  teacher_.reset();
  const fs::path checkpoint = dist::gather_of(*sharing_.world, [&] {  // the first knows: others may see it late
    return speaks() ? io::latest_checkpoint(directory_.path())->string() : std::string();
  })[0];
  finish_run(config_, directory_, *validation_, checkpoint, device_, compute_dtype_, *sharing_.world);
}

int Trainer::agreed_signal() {
  const int own = interrupt_signal();
  if (sharing_.world->size() == 1) return own;
  for (const std::string& signal : sharing_.world->gather(cat(own)))
    if (signal != "0") return std::stoi(signal);
  return 0;
}

void Trainer::stop(int signal) {
  save(steps_done_, /*wait=*/true);
  throw InterruptedError(cat("stopped by signal ", signal, " after step ", steps_done_,
                             "; everything is saved, continue with --resume auto"));
}

dist::Sharing Trainer::whole_weights() const {
  dist::Sharing sharing = sharing_;
  sharing.gathers_blocks = false;
  return sharing;
}

void Trainer::store_keys_and_values() {
  if (config_.quantization)
    student_.decoder->store_keys_and_values_as(
        models::kv_cache_format(config_.quantization->kv_cache, "quantization.kv_cache"));
}

quant::Stage Trainer::next_stage() const {
  return config_.quantization ? quant::stage_at(*config_.quantization, steps_done_, total_steps_) : stage_;
}

void Trainer::enter_stage(const quant::Stage& next) {
  const bool starts = next.on && !stage_.on;
  quant::enter(*student_.registry, next, /*keep_range=*/!starts);
  if (starts) {  // the weights have moved since
    const dist::Unbounded unbounded(watchdog_);
    if (needs_calibration(student_))
      calibrate(config_, student_, *dataset_, whole_weights(), *sharing_.world);
    else
      dist::together(*sharing_.world, [&] { quant::initialise_from_weights(*student_.registry); });
    store_keys_and_values();
    warned_layers_.clear();
    if (health_) {  // changes and drift count from here
      health_ = std::make_unique<quant::HealthMonitor>(*student_.registry);
      health_->measure(sharing_.shards.get());
    }
  }
  stage_ = next;
  end_progress();
  log_info(cat("step ", steps_done_ + 1, ": quantization ", starts ? "begins" : "goes on",
               next.bits > 0 ? cat(" with at least ", next.bits, " bits") : " with the bits of its rules"));
}

bool Trainer::train_step(int64_t step, bool may_stop) {
  step_time_.begin();
  std::vector<data::Batch> micro_batches;
  data::Position position;
  for (int64_t i = 0; i < micro_batches_per_step_; ++i) {
    data::Loader::Item item = loader_->next();
    micro_batches.push_back(std::move(item.batch));
    position = std::move(item.position);
  }
  step_time_.data_is_here();
  const double progress = static_cast<double>(step) / static_cast<double>(total_steps_);
  const StepResult result = step_->run(micro_batches, progress, may_stop && interrupt_signal() != 0);
  if (result.stopped) return false;
  position_ = std::move(position);
  if (penalty_ && penalty_->applies(step, progress))
    if (const auto penalty = penalty_->add(micro_batches, step, progress); penalty && penalty->weight > 0)
      penalty_result_ = penalty;
  const auto& parameters = student_.decoder->parameters().all();
  const optim::GradientNorms norms = optim::gradient_norms(parameters, sharing_.shards.get());
  const at::Tensor bad = optim::non_finite(norms);
  const ops::HostValue is_bad(bad);  // the host prepares the next step while the device updates
  optimizer_->step(optim::learning_rate_multiplier(step, total_steps_, config_.optimizer),
                   optim::clip_factors(norms, config_.optimizer.clip_grad_norm), bad);  // a bad step changes nothing
  if (is_bad.get() != 0) diverged(step, result);
  optimizer_->zero_grad();
  step_->parameters_changed();
  const bool logs = (step + 1) % config_.logging.every_n_steps == 0 || step + 1 == total_steps_ || step == 0;
  if (logs) ops::synchronize(device_);  // so that what is logged has these steps' whole time
  step_time_.end();
  tokens_done_ += result.num_tokens;
  rate_.mark(now_s(), result.num_tokens);
  if (logs) log_step(step, result, norms.model.item<double>());
  return true;
}

void Trainer::diverged(int64_t step, StepResult result) {
  sum_losses(*sharing_.world, result);
  const auto names = optim::non_finite_gradients(student_.decoder->parameters().all());
  const auto total = static_cast<int64_t>(sharing_.shards->sum({static_cast<double>(names.size())})[0]);
  std::string nearest = "?";  // of any process's rows
  for (const std::string& name : sharing_.shards->gather(names.empty() ? "" : names.back()))
    if (!name.empty()) nearest = name;
  checkpoints_.reset();  // waits for one that is being written
  const auto last_good = io::latest_checkpoint(directory_.path());
  std::string losses;
  for (const auto& [name, value] : result.losses) losses += cat(" ", name, " ", value.item<double>());
  throw DivergedError(cat(
      "training diverged at step ", step + 1, ": ", total, " gradients are not finite, nearest to the cause: ", nearest,
      " (losses:", losses, "). Last good checkpoint: ", last_good ? last_good->string() : "none",
      ". Try a lower optimizer.learning_rate or scale_learning_rate, or a longer warm-up, and --resume auto"));
}

double Trainer::flops_per_token(double progress) const {
  const int64_t length = config_.train.sequence_length;
  const report::ModelSize student = model_size(*student_.decoder), teacher = teacher_ ? model_size(*teacher_) : student;
  const auto reading = [&](report::ModelSize a, report::ModelSize b) {
    double flops = report::training_flops_per_token(a, length);
    if (teacher_ && objective_->needs_teacher(progress)) flops += report::forward_flops_per_token(b, length);
    return flops;
  };
  double flops = reading(student, teacher);
  if (neighbourhood_->branches(progress)) {  // all of them, but through the head only those with a loss
    const auto without_head = [&](report::ModelSize size, const models::Decoder& decoder) {
      const double scored = neighbourhood_->rate_at(progress);
      size.matmul_parameters -= static_cast<int64_t>(
          (1 - scored) * static_cast<double>(decoder.config().vocab_size * decoder.config().hidden_size));
      return size;
    };
    flops += reading(without_head(student, *student_.decoder), teacher_ ? without_head(teacher, *teacher_) : teacher);
  }
  if (losses_read_cache(config_)) return flops;  // neighbours are in the cache
  const auto calls = static_cast<double>(neighbourhood_->num_source_calls(progress, dataset_->has_stored_teacher()));
  return flops + calls * report::forward_flops_per_token(neighbourhood_->needs_student() ? student : teacher, length);
}

void Trainer::log_step(int64_t step, StepResult result, double grad_norm) {
  sum_losses(*sharing_.world, result);
  const std::vector<StepShares> step_time = step_time_.take();
  if (!speaks()) return;
  const double tokens_per_second = rate_.tokens_per_second();
  const double total = result.total.item<double>();
  nlohmann::ordered_json entry = {{"step", step + 1}, {"tokens", tokens_done_}, {"loss", total}};
  for (const auto& [name, value] : result.losses) entry[name] = value.item<double>();
  if (penalty_result_) {
    entry["lgr"] = penalty_result_->value.item<double>();
    entry["lgr_weight"] = penalty_result_->weight;
    entry["lgr_ratio"] = penalty_result_->ratio;
    penalty_result_.reset();
  }
  entry["lr"] =
      config_.optimizer.learning_rate * optim::learning_rate_multiplier(step, total_steps_, config_.optimizer);
  entry["grad_norm"] = grad_norm;
  entry["tokens_per_second"] = tokens_per_second;
  std::optional<double> mfu;
  if (peak_flops_)
    mfu = tokens_per_second * flops_per_token(static_cast<double>(step) / static_cast<double>(total_steps_)) /
          (*peak_flops_ * static_cast<double>(sharing_.world->size()));
  if (mfu) entry["mfu"] = *mfu;
  entry.update(step_time_json(step_time));
  entry["memory"] = ops::peak_memory_bytes(device_);
  metrics_->append(entry);
  if (tensorboard_) {
    for (const auto& [name, value] : report::numbers_of(entry)) tensorboard_->add_scalar(name, value, step + 1);
    tensorboard_->flush();
  }
  report::Progress line{step + 1, total_steps_, total, tokens_per_second, mfu, ops::memory_bytes(device_), {}};
  const double tokens_left = static_cast<double>(total_steps_ - step - 1) * static_cast<double>(result.num_tokens);
  if (tokens_per_second > 0) line.remaining_s = tokens_left / tokens_per_second;
  report::show_progress(line);
}

void Trainer::log_quantizers(int64_t steps_done) {
  const std::vector<quant::LayerHealth> layers = health_->measure(sharing_.shards.get());
  if (!speaks()) return;
  const quant::HealthSummary mean = quant::summary(layers);
  const nlohmann::ordered_json means = {
      {"clipped", mean.clipped}, {"changed", mean.changed}, {"scale_drift", mean.scale_drift}};
  metrics_->append({{"step", steps_done}, {"quantizers", means}});
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& layer : layers)
    rows.push_back({{"name", layer.name},
                    {"clipped", layer.clipped},
                    {"changed", layer.changed},
                    {"scale_drift", layer.scale_drift},
                    {"levels", layer.levels}});
  quantizer_log_->append({{"step", steps_done}, {"layers", rows}});
  if (tensorboard_) {
    for (const auto& [name, value] : report::numbers_of(means))
      tensorboard_->add_scalar(cat("quantizers/", name), value, steps_done);
    tensorboard_->flush();
  }
  constexpr int kMostLines = 3;
  int num_new = 0;
  for (const auto& warning :
       quant::health_warnings(layers, static_cast<double>(steps_done) / static_cast<double>(total_steps_)))
    if (warned_layers_.insert(warning.layer).second && ++num_new <= kMostLines)
      log_warning(cat("quantizer of ", warning.layer, ": ", warning.text));
  if (num_new > kMostLines)
    log_warning(cat("... and ", num_new - kMostLines, " more layers; see ", directory_.quantizer_health().string()));
}

void Trainer::save(int64_t steps_done, bool wait) {
  const dist::Unbounded unbounded(watchdog_);
  if (!checkpoints_)
    checkpoints_ =
        std::make_unique<io::AsyncCheckpointWriter>(directory_.path(), config_.checkpoint.keep, sharing_.world);
  if (steps_done != last_saved_) {
    io::CheckpointContents contents = checkpoint_contents(config_, student_);
    contents.manifest.step = steps_done;
    contents.manifest.tokens = tokens_done_;
    contents.manifest.state = {{"position", position_.to_json()}};
    if (penalty_) contents.manifest.state["lgr"] = penalty_->weight().state();
    contents.optimizer = checkpoint_state(*optimizer_, student_.decoder->parameters());
    checkpoints_->save(contents);
    last_saved_ = steps_done;
  }
  if (wait) checkpoints_->wait();
}

void Trainer::evaluate_live(int64_t steps_done) {
  const dist::Unbounded unbounded(watchdog_);
  const dist::Sharing whole = whole_weights();
  quant::HeldWeights weights(*student_.registry, compute_dtype_, /*trainable=*/false, whole);
  weights.bring_all();
  const nlohmann::json results = validation_->evaluate(*student_.decoder, cat("step ", steps_done), *sharing_.world);
  if (results.empty() || !speaks()) return;
  metrics_->append({{"step", steps_done}, {"eval", results}});
  if (tensorboard_)
    for (const auto& [name, value] : results.items())
      tensorboard_->add_scalar(cat("perplexity/", name), value["perplexity"], steps_done);
  if (tensorboard_) tensorboard_->flush();
}

}  // namespace satin::train
