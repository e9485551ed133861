// What happens when the weights are final: evaluation of the model as shipped, exports, report.
#pragma once
#include "config/schema.h"
#include "nn/parameters.h"
#include "train/run_directory.h"
#include "train/validation.h"

namespace satin::train {

/// Opens the checkpoint as it is shipped, evaluates it beside the teacher (both in fp32), writes evaluation.json, the
/// exports and report.html.
void finish_run(const config::Config& config, const RunDirectory& directory, const Validation& validation,
                const fs::path& checkpoint, at::Device device, at::ScalarType compute_dtype);

}  // namespace satin::train
