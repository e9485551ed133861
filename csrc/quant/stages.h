// Where a run stands in its schedule of quantization: not yet, at more bits than it will end with, or all the way.
#pragma once
#include "config/schema.h"
#include "quant/registry.h"

namespace satin::quant {

struct Stage {
  bool on = true;  ///< false: before quantization.fake_quant_after_n_steps
  int bits = 0;    ///< integer grids with fewer bits use these instead; 0: every layer has its own
  bool operator==(const Stage&) const = default;
};

/// Of the step that comes after `steps_done`.
Stage stage_at(const config::Quantization& quantization, int64_t steps_done, int64_t total_steps);

/// Brings every layer there. keep_range: learned scales are those of another stage and are converted (nested grids:
/// the levels of the coarser one are levels of the finer); false where they have just been loaded or not yet made.
void enter(const Registry& registry, const Stage& stage, bool keep_range);

}  // namespace satin::quant
