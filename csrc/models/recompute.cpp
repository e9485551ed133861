#include "models/recompute.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

namespace satin::models {
namespace {

at::Tensor detached(const at::Tensor& tensor) { return tensor.defined() ? tensor.detach() : tensor; }

/// A leaf of its own for the backward of a block.
at::Tensor as_leaf(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.detach().set_requires_grad(true) : tensor;
}

at::Tensor gradient_of(const at::Tensor& leaf) { return leaf.defined() ? leaf.grad() : at::Tensor(); }

struct Recompute : torch::autograd::Node {
  Recompute(Stream input, std::function<Stream(const Stream&)> block)
      : input_(std::move(input)), block_(std::move(block)) {}

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    const at::AutoGradMode enabled(true);
    const Stream leaves{as_leaf(input_.first), as_leaf(input_.second)};
    const Stream output = block_(leaves);
    torch::autograd::variable_list roots, of_roots;
    const auto add = [&](const at::Tensor& root, const at::Tensor& gradient) {
      if (!gradient.defined()) return;
      roots.push_back(root);
      of_roots.push_back(gradient);
    };
    add(output.first, gradients[0]);
    if (output.second.defined()) add(output.second, gradients[1]);
    if (!roots.empty()) torch::autograd::backward(roots, of_roots);
    torch::autograd::variable_list found{gradient_of(leaves.first)};
    if (leaves.second.defined()) found.push_back(gradient_of(leaves.second));
    return found;
  }

  void release_variables() override { input_ = {}; }

  Stream input_;
  std::function<Stream(const Stream&)> block_;
};

}  // namespace

Stream recomputed(const Stream& stream, std::function<Stream(const Stream&)> block) {
  if (!at::GradMode::is_enabled()) return block(stream);
  const auto& [x, delta] = stream;
  const auto node = std::make_shared<Recompute>(Stream{detached(x), detached(delta)}, block);
  node->set_next_edges(delta.defined() ? torch::autograd::collect_next_edges(x, delta)
                                       : torch::autograd::collect_next_edges(x));
  Stream output;
  {
    const at::NoGradGuard no_grad;
    output = block(node->input_);
  }
  torch::autograd::create_gradient_edge(output.first, node);
  if (output.second.defined()) torch::autograd::create_gradient_edge(output.second, node);
  return output;
}

}  // namespace satin::models
