// What a job would take on many GPUs under each strategy: memory and time, from shapes alone, before it starts.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/memory_estimate.h"
#include "train/models.h"
#include "train/scaling_model.h"

namespace satin::train {

struct Job {
  int64_t world_size = 1, gpus_per_host = 8;
  int64_t device_memory_bytes = 0;  ///< of a GPU; 0: not known, everything fits
  Cluster cluster;
};

struct Plan {
  Layout layout;
  MemoryEstimate memory;
  bool fits = true;    ///< in kUsableMemory of the device's
  PredictedTime time;  ///< with what the layout gathers: weights in the compute dtype, or codes and scales
  PredictedTime with_weights, with_codes;
};

/// The student as the first process of a job would build it, without memory or values (meta device). Throws UserError.
Student student_shapes(const config::Config& config, at::ScalarType compute_dtype, const nn::RowShard& shard = {});

/// What the time of the configured job depends on, but for loss.lgr. `student`: not split.
Workload workload_of(const config::Config& config, const Student& student, const models::ModelConfig* teacher,
                     at::ScalarType compute_dtype);

/// Every strategy, in the order of kStrategies, on GPUs. Throws UserError when a step has fewer sequences than there
/// are processes.
std::vector<Plan> plan_strategies(const config::Config& config, const models::ModelConfig* teacher,
                                  at::ScalarType compute_dtype, const Job& job);

/// parallel.strategy and parallel.teacher. auto: the first of ddp, zero2, fsdp whose memory fits, fsdp where none does;
/// the teacher whole where it fits. `device`: where it trains.
Layout resolve_layout(const config::Config& config, const models::ModelConfig* teacher, at::ScalarType compute_dtype,
                      at::Device device, const Job& job);

std::string plan_text(const std::vector<Plan>& plans, const config::Config& config, const Job& job);
nlohmann::json plan_json(const std::vector<Plan>& plans, const config::Config& config, const Job& job);

}  // namespace satin::train
