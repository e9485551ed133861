#include "nn/gradient.h"

#include <ATen/ATen.h>

namespace satin::nn {

void add_gradient(const at::Tensor& leaf, const at::Tensor& gradient) {
  if (!leaf.requires_grad()) return;
  at::Tensor& sum = leaf.mutable_grad();
  if (sum.defined()) {
    sum.add_(gradient);
  } else {
    sum = gradient;
  }
}

}  // namespace satin::nn
