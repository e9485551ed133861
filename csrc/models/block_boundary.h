// Who brings weights before a block and takes them away after it is told where a pass stands.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

namespace satin::models {

enum class BlockEvent { kBeforeForward, kAfterForward, kBeforeBackward, kAfterBackward };
/// Called on the thread that computes. After a block's backward the gradients of all its parameters are there.
using BlockObserver = std::function<void(BlockEvent event, int64_t block)>;

/// The stream between two blocks, x and what is yet to be added to it (undefined before block 0): the same values, in
/// whose backward `observer` hears that `block` (of num_blocks) is done and the one before begins.
std::pair<at::Tensor, at::Tensor> block_boundary(const at::Tensor& x, const at::Tensor& delta, int64_t block,
                                                 int64_t num_blocks, const BlockObserver& observer);

}  // namespace satin::models
