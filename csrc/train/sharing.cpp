#include "train/sharing.h"

#include "core/error.h"
#include "core/log.h"
#include "train/gradient_penalty.h"

namespace satin::train {

dist::Sharing make_sharing(const config::Config& config, std::shared_ptr<dist::Communicator> world) {
  dist::Sharing sharing;
  sharing.world = world;
  if (world->size() == 1) return sharing;
  const config::Parallel& parallel = config.parallel;
  const int64_t samples = config.train.micro_batch_size * config.train.gradient_accumulation_steps;
  if (samples < world->size())
    throw UserError(cat("a step has ", samples, " samples (train.micro_batch_size ", config.train.micro_batch_size,
                        " x train.gradient_accumulation_steps ", config.train.gradient_accumulation_steps,
                        "), the job ", world->size(), " processes: give each at least one, or start fewer"));
  if (penalises(config.loss.lgr))
    throw UserError(cat("loss.lgr: found with ", world->size(),
                        " processes; it is computed in one process only: start one, or set its weight to 0"));
  if (parallel.reduce_dtype != "auto")
    sharing.reduce_dtype = parallel.reduce_dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  const std::string strategy = parallel.strategy == "auto" ? "ddp" : parallel.strategy;
  if (strategy == "ddp") {
    sharing.replicas = world;
  } else {
    sharing.shards = world;
    sharing.gathers_blocks = strategy == "fsdp" || strategy == "hybrid";
    sharing.reduces_each_micro_batch = strategy != "zero1";
  }
  log_info(cat("parallel.strategy ", strategy, " on ", world->size(), " processes, ", samples, " samples a step"));
  return sharing;
}

}  // namespace satin::train
