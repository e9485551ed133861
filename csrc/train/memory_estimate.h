// How much device memory a run will need, before it starts.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config/schema.h"
#include "models/decoder.h"
#include "train/layout.h"

namespace satin::train {

/// Bytes by part at the peak, in the order they are printed: weights (masters, and whole copies of split matrices in
/// full precision), optimizer, teacher, activations, held weights (quantized or cast, in the compute dtype), loss,
/// workspace, and gradients beside all of these (they take the place of activations, and what exceeds it); codes,
/// hidden and lgr where there are any.
struct MemoryEstimate {
  std::vector<std::pair<std::string, int64_t>> parts;
  int64_t total_bytes() const;
};

/// Counted from the shapes and what each operator keeps for its backward, of the process with the most rows. `student`
/// was built with layout.shard(), on any device (meta takes no memory): no tensor is read. `teacher` may be null.
/// `device`: where it will train. Throws UserError when a step has fewer sequences than there are processes.
MemoryEstimate estimate_memory(const config::Config& config, const models::Decoder& student,
                               const models::ModelConfig* teacher, at::ScalarType compute_dtype, at::Device device,
                               const Layout& layout = {});

/// Of a device's memory, what a run may plan with: the rest is CUDA's context, buffers of collectives and
/// fragmentation.
inline constexpr double kUsableMemory = 0.92;

/// Kept for the backward of a block, bytes a token: the residual stream before both norms (`wide` bytes a value), both
/// norms' outputs, rotated q and k, v, the attention's output and logsumexp, of the MLP gate, up and silu(gate) up, and
/// what wrappers of the quantized linears keep.
int64_t activation_bytes_a_layer(const config::Config& config, const models::ModelConfig& model, int64_t element_size,
                                 int64_t wide);

std::string memory_text(const MemoryEstimate& estimate);

}  // namespace satin::train
