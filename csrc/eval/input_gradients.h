// How steeply a model's loss rises with its inputs: the smoothness proxy of arXiv 2605.08894 (C_avg and C_lower are the
// mean and the largest of these norms).
#pragma once
#include "models/decoder.h"

namespace satin::eval {

/// Shapes: B windows, T tokens, H hidden.
struct InputGradients {
  at::Tensor hidden;  ///< [B, T, H] the forward pass's output, detached
  at::Tensor x0;  ///< [B, T] fp32 (fp64) |d f / d x_t| with x the embeddings, f the mean cross-entropy of the window
  at::Tensor x1;  ///< [B, T] the same with x the input of layer 1; undefined for a model of one layer
};

/// tokens [B, T] int64, each row a window of its own: T - 1 predictions, so the last token's gradient is 0 and all
/// scale with 1 / T. Vocabulary logits exist for `chunk_tokens` tokens at a time. Computes as the model does (rounding
/// in the compute dtype, quantized activations straight through); parameters get no gradients.
InputGradients input_gradients(models::Decoder& decoder, const at::Tensor& tokens, int64_t chunk_tokens);

}  // namespace satin::eval
