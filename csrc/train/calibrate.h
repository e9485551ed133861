// What quantizers want to know of a layer's inputs before they start.
#pragma once
#include "data/dataset.h"
#include "dist/sharing.h"
#include "train/models.h"

namespace satin::train {

/// Whether a layer of the student asks for it.
bool needs_calibration(const Student& student);

/// Reads quantization.calibration_sequences training sequences with every layer in full precision, then starts all
/// quantizers anew from the weights and what was seen. Logs a line. `sharing`: how the student's weights are split.
/// Called by every rank of `world`: they share the sequences, and what was seen has the bits of one process.
void calibrate(const config::Config& config, const Student& student, const data::Dataset& dataset,
               const dist::Sharing& sharing = dist::not_shared(),
               dist::Communicator& world = *dist::Communicator::alone());

}  // namespace satin::train
