#include "models/block_boundary.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

namespace satin::models {
namespace {

struct Boundary : torch::autograd::Node {
  explicit Boundary(std::function<void()> passed) : passed_(std::move(passed)) {}
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    passed_();
    return std::move(gradients);
  }
  std::function<void()> passed_;
};

}  // namespace

std::pair<at::Tensor, at::Tensor> block_boundary(const at::Tensor& x, const at::Tensor& delta, int64_t block,
                                                 int64_t num_blocks, const BlockObserver& observer) {
  if (!at::GradMode::is_enabled() || !x.requires_grad()) return {x, delta};
  const auto node = std::make_shared<Boundary>([block, num_blocks, observer] {
    if (block < num_blocks) observer(BlockEvent::kAfterBackward, block);
    if (block > 0) observer(BlockEvent::kBeforeBackward, block - 1);
  });
  const auto through = [&](const at::Tensor& tensor) {
    at::Tensor same = tensor.detach();
    torch::autograd::create_gradient_edge(same, node);
    return same;
  };
  node->set_next_edges(delta.defined() ? torch::autograd::collect_next_edges(x, delta)
                                       : torch::autograd::collect_next_edges(x));
  const at::Tensor same_x = through(x);  // its place among the node's inputs is that of its edge
  return {same_x, delta.defined() ? through(delta) : delta};
}

}  // namespace satin::models
