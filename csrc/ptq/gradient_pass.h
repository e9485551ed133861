// How the full-precision loss depends on what blocks and layers give: a backward pass over the calibration text, block
// by block, each computed again from its input; as many passes as the moments' memory asks for.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "ptq/blocks.h"
#include "quant/registry.h"

namespace satin::ptq {

/// df/dhidden [B, T, H] of the final norm's output, f the mean cross-entropy of a sequence's scored tokens, summed over
/// sequences. tokens [B, T] int64, scored [B, T] bool: position t's prediction of token t + 1 counts.
at::Tensor gradient_of_hidden(models::Decoder& decoder, const at::Tensor& hidden, const at::Tensor& tokens,
                              const at::Tensor& scored);

/// f is the mean cross-entropy of a sequence's scored tokens.
struct BlockGradients {
  std::map<std::string, at::Tensor> moments;  ///< by linear layer: E[g g^T] [out, out] of g = df/dy, its output
  at::Tensor at_input, at_output;  ///< [S, T, H] df/dx of the streams before and after the block, or undefined
};

/// Of the blocks first ... last - 1, moments on the decoder's device, streams where streams are kept. `linears`: those
/// of the registry inside block i; they compute as they are enabled. `with_streams`: at_input and at_output too. Memory
/// beyond the result: the streams of one batch. Several passes over a part each give the same bits.
std::vector<BlockGradients> collect_gradients(const Blocks& blocks,
                                              const std::vector<std::vector<quant::QuantLinear*>>& linears,
                                              int64_t first, int64_t last, bool with_streams);

/// Bytes of the moments of a block whose linears these are.
int64_t gradient_bytes(const std::vector<quant::QuantLinear*>& linears, int64_t element_size);
/// Blocks whose moments one pass holds: as many as fit in `budget_bytes` together, at least one.
int64_t blocks_a_pass(const std::vector<std::vector<quant::QuantLinear*>>& linears, int64_t element_size,
                      int64_t budget_bytes);

}  // namespace satin::ptq
