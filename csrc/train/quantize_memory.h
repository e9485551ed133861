// How much device memory `satin quantize` will need.
#pragma once
#include "train/memory_estimate.h"
#include "train/models.h"

namespace satin::train {

/// The parts at the peak of its largest phase: the backward pass of the full-precision model (where one is needed),
/// summing moments of inputs, rounding, or going on to the next block. Counted from shapes; no tensor of `student` is
/// read. Parts: weights (masters and quantizers), streams (the residual streams of all calibration text; none with
/// ptq.keep_on_host), moments (of inputs and of gradients), batch (activations of a forward, or a forward and backward)
/// and work (what rounding a layer, or training a block, takes beside it).
MemoryEstimate estimate_quantize_memory(const config::Config& config, const Student& student,
                                        at::ScalarType compute_dtype, at::Device device);

}  // namespace satin::train
