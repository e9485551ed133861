// How the processes of a job share the student: parallel.strategy, resolved.
//
//            masters, moments   quantized weights            their gradients, summed over processes
//   ddp      each has all       each quantizes all           once a step, under the last backward
//   zero1    split by rows      gathered once a step         once a step, under the last backward
//   zero2    split by rows      gathered once a step         each micro-batch, under its backward
//   fsdp     split by rows      gathered a block at a time,  each micro-batch, under its backward
//                               for forward and backward
//   hybrid   fsdp inside a host, ddp across hosts
// Gathers run a block ahead of the arithmetic, sums behind it; between hosts codes and scales are gathered, inside a
// host weights. The teacher is whole on every process, or with fsdp and hybrid split as the student is
// (parallel.teacher; split_teacher.h). Source: Rajbhandari et al. 2020 (ZeRO), section 5; Zhao et al. 2023 (PyTorch
// FSDP), sections 3 and 4.
#pragma once
#include <string>
#include <vector>

#include "config/schema.h"
#include "nn/parameters.h"

namespace satin::train {

enum class Strategy { kDdp, kZero1, kZero2, kFsdp, kHybrid };
inline constexpr Strategy kStrategies[] = {Strategy::kDdp, Strategy::kZero1, Strategy::kZero2, Strategy::kFsdp,
                                           Strategy::kHybrid};
/// As the configuration spells it.
const char* strategy_name(Strategy strategy);
/// Throws InternalError for "auto" and names that the configuration refuses.
Strategy strategy_of(const std::string& name);

struct Layout {
  Strategy strategy = Strategy::kDdp;
  int64_t world_size = 1;      ///< processes, one a GPU
  int64_t gpus_per_host = 8;   ///< a job of fewer processes is on one host
  bool split_teacher = false;  ///< where weights are there a block at a time

  int64_t num_hosts() const;
  /// Processes that one copy of the master weights is split over.
  int64_t num_shards() const;
  /// Whether weights are there a block at a time.
  bool gathers_blocks() const;
  /// Whether quantized weights travel as codes and scales: between hosts, whose networks are slow. Inside a host it
  /// would save less time than it takes to make weights of them.
  bool gathers_codes() const { return num_shards() > gpus_per_host; }
  /// Whether gradients are summed over processes after each micro-batch, not once a step.
  bool reduces_each_micro_batch() const;
  /// Whether the teacher's are, too.
  bool splits_teacher() const { return split_teacher && gathers_blocks(); }
  /// The first process, which has the most rows.
  nn::RowShard shard() const { return {0, num_shards()}; }
};

/// Throws UserError when the processes do not fill their hosts.
void check_hosts(int64_t world_size, int64_t gpus_per_host);

/// What one process does of a step: data::StepShare, of the process with the most.
struct BatchShare {
  int64_t sequences;   ///< of the step
  int64_t forwards;    ///< micro-batches, as many on every process
  int64_t in_forward;  ///< sequences in one, at most
};
/// Throws UserError when there are fewer sequences than processes.
BatchShare share_of_step(const config::Train& train, int64_t world_size);

}  // namespace satin::train
