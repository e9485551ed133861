// satin train --dry-run: everything that can be known before training, without writing anything.
#pragma once
#include "config/schema.h"

namespace satin::train {

/// Reads the config's models, tokenizer and data files, checks that they fit together and with the exports, and prints
/// the quantization table, the length of the run and the memory estimate to stdout. Throws UserError.
void dry_run(const config::Config& config);

}  // namespace satin::train
