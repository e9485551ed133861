#include "dist/communicator.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "dist/row_lists.h"
#include "dist/work.h"

namespace satin::dist {
namespace {

/// A collective of copies, which are copied back when it is done.
struct OfCopies : Pending::Work {
  OfCopies(Pending sums, std::vector<at::Tensor> copies, std::vector<at::Tensor> tensors)
      : sums(std::move(sums)), copies(std::move(copies)), tensors(std::move(tensors)) {}
  void wait() override {
    const at::NoGradGuard no_grad;
    sums.wait();
    at::_foreach_copy_(tensors, copies);
  }
  Pending sums;
  std::vector<at::Tensor> copies, tensors;
};

}  // namespace

void Pending::wait() {
  if (work_) work_->wait();
  work_.reset();
}

Pending Communicator::all_reduce_in(at::ScalarType dtype, const std::vector<at::Tensor>& tensors) {
  if (size() == 1 || tensors.empty() || tensors[0].scalar_type() == dtype) return all_reduce(tensors);
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> mine;
  for (const at::Tensor& tensor : tensors) mine.push_back(tensor.detach());
  const std::vector<at::Tensor> copies = all_as(mine, dtype);
  return Pending(std::make_shared<OfCopies>(all_reduce(copies), copies, std::move(mine)));
}

}  // namespace satin::dist
