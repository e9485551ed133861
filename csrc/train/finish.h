// What happens when the weights are final: evaluation of the model as shipped, exports, report.
#pragma once
#include "config/schema.h"
#include "dist/communicator.h"
#include "nn/parameters.h"
#include "train/run_directory.h"
#include "train/validation.h"

namespace satin::train {

/// Opens the checkpoint as it is shipped, evaluates it beside the teacher (both in fp32), writes evaluation.json, the
/// exports and report.html. Called by every rank: all evaluate, rank 0 does the rest alone.
void finish_run(const config::Config& config, const RunDirectory& directory, const Validation& validation,
                const fs::path& checkpoint, at::Device device, at::ScalarType compute_dtype,
                dist::Communicator& world = *dist::Communicator::alone());

}  // namespace satin::train
