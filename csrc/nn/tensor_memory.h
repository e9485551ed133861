// Memory of a tensor that graphs and modules hold, taken away and brought back: whole weights that are here only while
// a block uses them.
#pragma once
#include <ATen/core/Tensor.h>

namespace satin::nn {

/// Puts the memory of `from` under `to`, which graphs may have saved: they see the values again. Not a change to
/// autograd, as these are the values that were saved. `from` is empty afterwards.
void move_memory(const at::Tensor& to, const at::Tensor& from);
/// Frees it; the tensor keeps its shape and must not be read.
void drop_memory(const at::Tensor& tensor);

}  // namespace satin::nn
