#include "dist/row_lists.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"

namespace satin::dist {
namespace {

constexpr int64_t kPacked = 1 << 20;  ///< numbers of a list that is summed as one tensor

int64_t rows_each(int64_t rows, int64_t size) { return (rows + size - 1) / size; }

}  // namespace

RowGather::RowGather(Communicator& group, const std::vector<at::Tensor>& parts, std::vector<int64_t> num_rows) {
  const at::NoGradGuard no_grad;
  SATIN_CHECK_EQ(parts.size(), num_rows.size());
  std::vector<ToGather> wholes;
  std::vector<at::Tensor> mine;
  for (size_t i = 0; i < parts.size(); ++i) {
    std::vector<int64_t> shape = parts[i].sizes().vec();
    const int64_t row = c10::multiply_integers(shape.begin() + 1, shape.end());
    shape[0] = num_rows[i];
    wholes_.push_back(at::empty({0}, parts[i].options().requires_grad(false)));
    wholes.push_back({wholes_.back(), std::move(shape), rows_each(num_rows[i], group.size()) * row});
    mine.push_back(parts[i].detach().contiguous());
  }
  pending_ = group.all_gather(wholes, mine);
}

std::vector<at::Tensor> RowGather::finish() {
  pending_.wait();
  return std::move(wholes_);
}

RowReduce::RowReduce(Communicator& group, const std::vector<at::Tensor>& wholes, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  if (wholes.empty()) return;
  std::vector<Sliced> sliced;
  int64_t total = 0;
  for (const at::Tensor& whole : wholes) {
    const int64_t each = rows_each(whole.size(0), group.size());
    std::vector<int64_t> shape = whole.sizes().vec();
    chunks_.push_back(each * c10::multiply_integers(shape.begin() + 1, shape.end()));
    shape[0] = std::min(each, whole.size(0) - group.rank() * each);
    SATIN_CHECK(shape[0] > 0, "a rank owns no row of ", whole.sizes());
    shapes_.push_back(std::move(shape));
    sliced.push_back({whole.detach().contiguous(), chunks_.back()});
    total += chunks_.back();
  }
  mine_ = at::empty({total}, wholes[0].options().dtype(dtype).requires_grad(false));
  pending_ = group.reduce_scatter(mine_, sliced);
}

std::vector<at::Tensor> RowReduce::finish() {
  pending_.wait();
  std::vector<at::Tensor> parts;
  int64_t at = 0;
  for (size_t i = 0; i < shapes_.size(); at += chunks_[i++])
    parts.push_back(mine_.narrow(0, at, c10::multiply_integers(shapes_[i])).view(shapes_[i]));
  return parts;
}

std::vector<at::Tensor> all_as(const std::vector<at::Tensor>& tensors, at::ScalarType dtype) {
  const auto is_one = [&](const at::Tensor& tensor) { return tensor.scalar_type() == dtype; };
  if (std::all_of(tensors.begin(), tensors.end(), is_one)) return tensors;
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : tensors) copies.push_back(at::empty(tensor.sizes(), tensor.options().dtype(dtype)));
  at::_foreach_copy_(copies, tensors);
  return copies;
}

ListReduce::ListReduce(Communicator& group, const std::vector<at::Tensor>& tensors, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  if (tensors.empty()) return;
  const at::ScalarType wide = c10::promoteTypes(tensors[0].scalar_type(), dtype);
  int64_t numel = 0;
  for (const at::Tensor& tensor : tensors) {
    sums_.push_back(tensor.detach().contiguous());
    numel += tensor.numel();
  }
  if (sums_.size() > 1 && numel <= kPacked) {  // every tensor of a message costs some copies of its own
    const at::Tensor packed = at::empty({numel}, sums_[0].options().dtype(wide));
    std::vector<at::Tensor> parts;
    int64_t at = 0;
    for (const at::Tensor& tensor : sums_) {
      parts.push_back(packed.narrow(0, at, tensor.numel()).view(tensor.sizes()));
      at += tensor.numel();
    }
    at::_foreach_copy_(parts, sums_);
    sums_ = std::move(parts);
    pending_ = group.all_reduce_in(dtype, {packed});
  } else {
    sums_ = all_as(sums_, wide);
    pending_ = group.all_reduce_in(dtype, sums_);
  }
}

std::vector<at::Tensor> ListReduce::finish() {
  pending_.wait();
  return std::move(sums_);
}

}  // namespace satin::dist
