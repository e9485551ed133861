// Gradients that do not come out of one backward.
#pragma once
#include <ATen/core/Tensor.h>

namespace satin::nn {

/// Adds to the gradient of a leaf, of the same shape and dtype; the first becomes it as it is. Without effect on a leaf
/// that takes none. Within NoGradGuard.
void add_gradient(const at::Tensor& leaf, const at::Tensor& gradient);

}  // namespace satin::nn
