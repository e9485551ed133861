// How long a run is.
#pragma once
#include "config/schema.h"

namespace satin::train {

/// Steps of a run: max_steps, or max_tokens in whole steps (rounded, at least one).
int64_t total_steps(const config::Train& train);

/// Throws UserError when the run ends before quantization begins or its last stage ends, or a stage would pass unseen.
void check_schedule(const config::Config& config);

}  // namespace satin::train
