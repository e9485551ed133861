// What post-training quantization found for a layer, and how a layer holds it: its next forward gives exactly that.
#pragma once
#include "config/schema.h"
#include "quant/quant_linear.h"

namespace satin::ptq {

struct Rounded {
  at::Tensor weight;            ///< [N, K]: rounds to the found codes under `state`
  quant::QuantizerState state;  ///< [N, G]; schemes with learned scales
};

/// Copies it into the layer's weight and quantizer.
void hold(quant::QuantLinear& linear, const Rounded& rounded);
/// Moves each weight to the middle of its level, scale * level in the weight's dtype: codes and values stay.
void move_to_levels(quant::QuantLinear& linear);

}  // namespace satin::ptq
