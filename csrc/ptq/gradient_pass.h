// How the full-precision loss depends on what blocks and layers give: one backward pass over the calibration text,
// block by block, each computed again from its input.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "ptq/blocks.h"
#include "quant/registry.h"

namespace satin::ptq {

/// f is the mean cross-entropy of a sequence's scored tokens.
struct BlockGradients {
  std::map<std::string, at::Tensor> moments;  ///< by linear layer: E[g g^T] [out, out] of g = df/dy, its output
  at::Tensor at_input, at_output;  ///< [S, T, H] df/dx of the streams before and after the block, or undefined
};

/// Of every block, where streams are kept. `linears`: those of the registry inside block i; they compute as they are
/// enabled. `with_streams`: at_input and at_output too. Memory beyond the result: the streams of one batch.
std::vector<BlockGradients> collect_gradients(const Blocks& blocks,
                                              const std::vector<std::vector<quant::QuantLinear*>>& linears,
                                              bool with_streams);

}  // namespace satin::ptq
