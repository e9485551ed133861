// A block trained to give what it gave in full precision, on the stream that the quantized blocks before it give.
//
//   loss = mean (z_q - z)^2 + a mean (v_q - v)^2
// z      the full-precision block's output on the full-precision stream; z_q the quantized one's on the quantized
// stream v, v_q gradients at the block's input of the model's loss, with df/dz of the full-precision model after the
// block in
//        both: v = J^T df/dz (LGP). The gradient of the second term is a central difference along r = v - v_q,
//        -2 grad (df/dz . [z_q(x + e r) - z_q(x - e r)]) / 2e, so nothing is differentiated twice.
// Sources  Shao et al. 2024 (OmniQuant: clips), Chen et al. 2025 (EfficientQAT, Block-AP: weights, scales and zero
//          points), LGP: smoothness of quantized models, practical form.
#pragma once
#include "ptq/blocks.h"
#include "ptq/clipping.h"

namespace satin::ptq {

struct BlockTask {
  int64_t block = 0;
  std::vector<quant::QuantLinear*> linears;  ///< of the block
  at::Tensor inputs, targets;                ///< [S, T, H] x_q and z
  at::Tensor gradients, output_gradients;    ///< [S, T, H] v and df/dz, or undefined: no second term
};

struct BlockLoss {
  double outputs = 0, gradients = 0;  ///< means of squares, unweighted
  double total(double weight) const { return outputs + weight * gradients; }
};

/// Of the block as it is, over all sequences.
BlockLoss block_loss(const Blocks& blocks, const BlockTask& task);

/// A scalar with the loss's gradient in the block's parameters, for the sequences `which`; its value means nothing.
/// `weight`: a.
at::Tensor block_surrogate(const Blocks& blocks, const BlockTask& task, const at::Tensor& which, double weight);

struct BlockTraining {
  BlockLoss before, after;
  double weight = 0;  ///< a
};

/// Block-AP's rate for weights where none is given: as far in all as EfficientQAT's in its 4096 updates of a block,
/// since 2e-5 in a few hundred leaves a block nearly as it was.
double block_ap_rate(int bits, int64_t updates);

/// Learns what the layers hold: their clips where `clips`, else weights and quantizers. Batches are drawn anew each
/// epoch, a pure function of (seed, block, epoch). Rates fall linearly. Where the loss did not fall all is as it was.
/// Polls for signals. Throws DivergedError when the loss is not finite.
BlockTraining train_block(const Blocks& blocks, const BlockTask& task, bool clips, const config::Ptq& options,
                          uint64_t seed);

}  // namespace satin::ptq
