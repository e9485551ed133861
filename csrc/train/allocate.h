// Mixed precision by measurement: what each decoder layer costs at each number of bits, and the best allocation.
#pragma once
#include "config/schema.h"
#include "train/run_directory.h"

namespace satin::train {

/// Measures and decides as csrc/allocate/README.md says. Writes into train.output_dir: allocation.yaml and the controls
/// uniform.yaml, random-0.yaml ... random-2.yaml, perplexity-only.yaml (with reasoning texts), columns.yaml (with
/// allocate.columns), each a list for quantization.overrides_from; allocation.json with every number. Prints a table.
/// What was measured is kept in sensitivity.jsonl as it comes: with `resume` an interrupted run goes on from there.
/// Throws UserError, InterruptedError.
void allocate(const config::Config& config, const Resume& resume = {});

}  // namespace satin::train
