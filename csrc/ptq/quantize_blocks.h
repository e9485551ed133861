// Post-training quantization of a decoder, block by block: configuration and calibration text in, a student whose
// layers hold the result out.
#pragma once
#include <functional>

#include "config/schema.h"
#include "ptq/block_training.h"
#include "ptq/moments.h"
#include "ptq/stored_blocks.h"

namespace satin::ptq {

struct LayerReport {
  std::string name;
  Fidelity fidelity;  ///< on the inputs that the quantized layers before it give
};

struct BlockReport {
  int64_t block = 0;
  std::vector<LayerReport> layers;
  std::optional<BlockTraining> training;  ///< of methods that train blocks
  double seconds = 0;
};

/// Whether calibration text walks through the blocks: not for rounding to nearest alone.
bool walks_blocks(const config::Ptq& options);
/// Whether layers are rounded stage by stage, on what the stages before them give rounded.
bool by_stages(const config::Ptq& options);
/// A block's linears by what their inputs depend on: q, k, v; o; gate, up; down. Those of a stage read one input.
std::vector<std::vector<quant::QuantLinear*>> in_stages(const std::vector<quant::QuantLinear*>& linears);
/// The quantized linears inside each block, in the model's order.
std::vector<std::vector<quant::QuantLinear*>> linears_of_blocks(const quant::Registry& registry, int64_t num_blocks);
/// Whether a block's parameters are trained on its output; these methods alone look at what full-precision blocks give.
bool trains_blocks(const config::Ptq& options);
/// Whether a backward pass of the full-precision model comes first.
bool needs_gradients(const config::Ptq& options);
/// Of the moments of gradients that one such pass holds; a model that has more is passed over several times.
inline constexpr int64_t kGradientMomentsBytes = int64_t{16} << 30;

/// Quantizes every layer of the registry that is inside a block, with its scheme, as config.ptq says; others
/// (embedding, LM head) keep the state that their quantizers have. `stored` has what an interrupted run finished; each
/// further block is saved there after `done` heard of it: a kill in between makes the block and its report again. The
/// student's quantizers were started from its full-precision weights. Throws UserError, InterruptedError,
/// DivergedError.
void quantize_blocks(models::Decoder& decoder, const quant::Registry& registry, const Calibration& text,
                     const config::Config& config, const StoredBlocks& stored,
                     const std::function<void(const BlockReport&)>& done);

}  // namespace satin::ptq
