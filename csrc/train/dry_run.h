// satin train --dry-run: everything that can be known before training, without writing anything.
#pragma once
#include "config/schema.h"
#include "train/run_directory.h"

namespace satin::train {

/// Reads the config's models, tokenizer and data files, checks that they fit together, with the exports and with what
/// train.output_dir holds, and prints
/// the quantization table, the length of the run and the memory estimate to stdout. Throws UserError.
void dry_run(const config::Config& config, const Resume& resume);

}  // namespace satin::train
