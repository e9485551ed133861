// Activation checkpointing: what a block keeps for its backward is its input alone.
// Source: Chen et al. 2016 (arXiv 1604.06174), one segment a block.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

#include "nn/norm.h"

namespace satin::models {

using nn::Stream;

/// block(stream), in whose backward `block` runs again to make what it needs. Values and gradients are those of
/// block(stream), which must give the same values each time; gradients of the parameters that it uses go into their
/// grad(), so this is for backward(), not for grad() of chosen inputs. Without a gradient to compute: block(stream).
Stream recomputed(const Stream& stream, std::function<Stream(const Stream&)> block);

}  // namespace satin::models
