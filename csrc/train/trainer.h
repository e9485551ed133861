// The training loop: data -> step -> clipped update -> log -> checkpoint, and at the end evaluation and export.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>

#include "config/schema.h"
#include "data/loader.h"
#include "dist/sharing.h"
#include "dist/watchdog.h"
#include "io/checkpoint_writer.h"
#include "losses/neighbourhood.h"
#include "losses/objective.h"
#include "optim/adamw.h"
#include "quant/health.h"
#include "report/metrics.h"
#include "report/tensorboard.h"
#include "report/throughput.h"
#include "train/gradient_penalty.h"
#include "train/models.h"
#include "train/profile.h"
#include "train/run_directory.h"
#include "train/split_teacher.h"
#include "train/step.h"
#include "train/step_time.h"
#include "train/validation.h"

namespace satin::train {

class Trainer {
 public:
  /// Builds everything, from the newest checkpoint when resuming. Throws UserError before anything long starts; a
  /// configured export that cannot hold a configured scheme exactly is such an error.
  /// `world`: the processes of the job, each of which makes a Trainer with the same arguments.
  Trainer(const config::Config& config, const Resume& resume,
          std::shared_ptr<dist::Communicator> world = dist::Communicator::alone(), dist::Watchdog* watchdog = nullptr);
  ~Trainer();

  /// run() will record where the time of some early steps goes: profile.txt and trace.json in the run's directory.
  /// Throws UserError when too few are left.
  void profile_steps();
  /// Trains to the end, then evaluates and exports what was trained. Throws InterruptedError after saving when a signal
  /// asked to stop, DivergedError when a gradient is not finite.
  void run();

 private:
  /// What several processes hold is the first's, should two devices have rounded apart.
  void agree_on_parameters();
  void load_state(const fs::path& checkpoint, const io::Manifest& manifest);
  void open_logs(bool continues);
  /// Whether this process writes what the job says: metrics, events, the log.
  bool speaks() const { return sharing_.world->rank() == 0; }
  /// The signal that asked any process to stop, or 0.
  int agreed_signal();
  /// Of passes outside training, whose blocks nobody observes; nobody may have to wait there for a process that a
  /// signal takes out.
  dist::Sharing whole_weights() const;
  quant::Stage next_stage() const;
  void enter_stage(const quant::Stage& next);
  void store_keys_and_values();
  /// False: a process was asked to stop, and nothing was done; not where `may_stop` is false.
  bool train_step(int64_t step, bool may_stop);
  /// Saves, then says which signal asked for it.
  [[noreturn]] void stop(int signal);
  [[noreturn]] void diverged(int64_t step, StepResult result);
  /// Floating-point operations of a token of text at this point of training.
  double flops_per_token(double progress) const;
  void log_step(int64_t step, StepResult result, double grad_norm);
  void log_quantizers(int64_t steps_done);
  /// wait: until it is on the disk; else that happens while training goes on.
  void save(int64_t steps_done, bool wait);
  void evaluate_live(int64_t steps_done);

  config::Config config_;
  at::Device device_;
  at::ScalarType compute_dtype_;
  dist::Watchdog* watchdog_;  ///< null: nobody watches
  dist::Sharing sharing_;
  RunDirectory directory_;
  tokenizer::Tokenizer tokenizer_;
  std::unique_ptr<Validation> validation_;
  Student student_;
  std::unique_ptr<models::Decoder> teacher_;
  std::unique_ptr<SplitTeacher> split_teacher_;  ///< null: the teacher is whole, or there is none
  std::unique_ptr<losses::Objective> objective_;
  std::unique_ptr<losses::Neighbourhood> neighbourhood_;
  std::unique_ptr<TrainingStep> step_;
  std::unique_ptr<GradientPenalty> penalty_;  ///< null: the configuration has none
  std::unique_ptr<optim::AdamW> optimizer_;
  std::unique_ptr<data::Dataset> dataset_;
  std::unique_ptr<data::Loader> loader_;
  data::Position position_;
  std::unique_ptr<report::MetricsLog> metrics_, quantizer_log_;
  std::unique_ptr<quant::HealthMonitor> health_;
  std::set<std::string> warned_layers_;
  std::unique_ptr<report::TensorBoardWriter> tensorboard_;
  report::RateMeter rate_;
  StepTime step_time_{sharing_};
  std::unique_ptr<StepProfile> profile_;  ///< null: not asked for

  quant::Stage stage_;
  int64_t steps_done_ = 0, total_steps_ = 0, tokens_done_ = 0, micro_batches_per_step_ = 1;
  int64_t last_saved_ = -1;
  std::unique_ptr<io::AsyncCheckpointWriter> checkpoints_;  ///< null: nothing saved yet
  std::optional<PenaltyResult> penalty_result_;             ///< the latest that is not logged yet
  std::optional<double> peak_flops_;
};

}  // namespace satin::train
