#include "train/layout.h"

#include <algorithm>

#include "core/error.h"
#include "data/step_share.h"

namespace satin::train {
namespace {

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

const char* strategy_name(Strategy strategy) {
  switch (strategy) {
    case Strategy::kDdp:
      return "ddp";
    case Strategy::kZero1:
      return "zero1";
    case Strategy::kZero2:
      return "zero2";
    case Strategy::kFsdp:
      return "fsdp";
    case Strategy::kHybrid:
      return "hybrid";
  }
  SATIN_CHECK(false, "strategy ", static_cast<int>(strategy));
}

Strategy strategy_of(const std::string& name) {
  for (const Strategy strategy : kStrategies)
    if (name == strategy_name(strategy)) return strategy;
  throw InternalError(cat("no strategy is named ", name));
}

int64_t Layout::num_hosts() const { return ceil_divide(world_size, gpus_per_host); }

int64_t Layout::num_shards() const {
  if (strategy == Strategy::kDdp) return 1;
  return strategy == Strategy::kHybrid ? std::min(world_size, gpus_per_host) : world_size;
}

bool Layout::gathers_blocks() const {
  return num_shards() > 1 && (strategy == Strategy::kFsdp || strategy == Strategy::kHybrid);
}

bool Layout::reduces_each_micro_batch() const { return strategy != Strategy::kDdp && strategy != Strategy::kZero1; }

void check_hosts(int64_t world_size, int64_t gpus_per_host) {
  if (world_size < 1) throw UserError(cat("--world-size: expected 1 or more processes, found ", world_size));
  if (gpus_per_host < 1) throw UserError(cat("--hosts-gpus: expected 1 or more GPUs a host, found ", gpus_per_host));
  if (world_size > gpus_per_host && world_size % gpus_per_host != 0)
    throw UserError(cat("--world-size: expected whole hosts of ", gpus_per_host, " GPUs (--hosts-gpus), found ",
                        world_size, " processes"));
}

BatchShare share_of_step(const config::Train& train, int64_t world_size) {
  const int64_t all = train.micro_batch_size * train.gradient_accumulation_steps;
  if (all < world_size)
    throw UserError(cat("train: a step of ", all, " samples: micro_batch_size (", train.micro_batch_size,
                        ") x gradient_accumulation_steps (", train.gradient_accumulation_steps, ") = ", all,
                        " sequences, fewer than the ", world_size,
                        " processes that share them; raise one of the two, or use fewer processes"));
  const data::StepShare share{all, train.micro_batch_size, /*rank=*/0, world_size};
  const int64_t most = ceil_divide(all, world_size);
  return {most, share.num_micro_batches(), std::min(most, train.micro_batch_size)};
}

}  // namespace satin::train
