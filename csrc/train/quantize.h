// Post-training quantization: round-to-nearest with the scheme's initial scales, or a method of the ptq room.
#pragma once
#include "config/schema.h"
#include "train/run_directory.h"

namespace satin::train {

/// Quantizes model.path into train.output_dir as a run: a checkpoint (step 0, which `satin train` can start from:
/// model.quantized), its evaluation, exports and report; layers.jsonl with a line a block of what was measured. Blocks
/// are stored as they are finished, in the folder `ptq`, until the checkpoint is there: with `resume` an interrupted
/// run goes on from there to the same bits. Throws UserError, InterruptedError, DivergedError.
void quantize(const config::Config& config, const Resume& resume = {});

}  // namespace satin::train
