// Post-training quantization without training: round-to-nearest with the scheme's initial scales.
#pragma once
#include "config/schema.h"

namespace satin::train {

/// Quantizes model.path into train.output_dir as a run: a checkpoint (step 0, which `satin train` could start from),
/// its evaluation, exports and report. Throws UserError.
void quantize(const config::Config& config);

}  // namespace satin::train
