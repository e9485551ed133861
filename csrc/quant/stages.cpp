#include "quant/stages.h"

#include <algorithm>

#include "core/error.h"

namespace satin::quant {

Stage stage_at(const config::Quantization& quantization, int64_t steps_done, int64_t total_steps) {
  Stage stage;
  stage.on = steps_done >= quantization.fake_quant_after_n_steps;
  for (const config::HardeningStage& hardening : quantization.hardening) {
    if (static_cast<double>(steps_done) >= hardening.until * static_cast<double>(total_steps)) continue;
    stage.bits = static_cast<int>(hardening.bits);
    break;
  }
  return stage;
}

void enter(const Registry& registry, const Stage& stage, bool keep_range) {
  registry.enable(stage.on);
  for (const QuantizedModule& module : registry.modules()) {
    if (!module.scheme.has_integer_grid()) continue;
    const int bits = std::max(module.scheme.bits, stage.bits);
    if (bits == module.linear->scheme().bits) continue;
    SATIN_CHECK(!module.scheme.has_columns(), module.name, ": columns of other bits cannot harden");
    module.linear->set_bits(bits, keep_range);
  }
}

}  // namespace satin::quant
