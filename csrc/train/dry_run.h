// --dry-run: everything that can be known before a run without the weights' values, and without writing anything.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "config/schema.h"
#include "train/run_directory.h"

namespace satin::train {

struct DryRunOptions {
  int64_t world_size = 0;  ///< processes of a job, one a GPU: what each strategy will take of them; 0: not asked
  int64_t gpus_per_host = 8;
  double device_memory_gib = 0;  ///< of a GPU; 0: this machine's, 80 without one
  double host_bus_gb_s = 0;      ///< measured bus bandwidth inside a host; 0: Cluster's
  double network_gbit_s = 0;     ///< of a GPU's adapter; 0: Cluster's
};

/// Reads the config's models, tokenizer and data files, checks that they fit together, with the exports and with what
/// train.output_dir holds (of weights names and shapes), and prints the quantization table, the length of the run and
/// the memory estimate to stdout: with a world_size of every strategy, beside the time that a step should take
/// (train/scaling_model.h), for GPUs whatever this machine has, and of weights the shapes that config.json says.
/// Returns these as JSON, null without. Throws UserError.
nlohmann::json dry_run(const config::Config& config, const Resume& resume, const DryRunOptions& options = {});

/// The like of satin quantize: the table, the calibration text's size and the memory estimate (quantize_memory.h).
/// Throws UserError.
void dry_run_quantize(const config::Config& config, const Resume& resume);

}  // namespace satin::train
