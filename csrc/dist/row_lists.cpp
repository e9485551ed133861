#include "dist/row_lists.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"

namespace satin::dist {
namespace {

constexpr int64_t kPacked = 1 << 20;  ///< numbers of a list that is summed as one tensor

int64_t rows_each(int64_t rows, int64_t size) { return (rows + size - 1) / size; }
int64_t row_elements(const at::Tensor& matrix) { return matrix.size(0) == 0 ? 0 : matrix.numel() / matrix.size(0); }

}  // namespace

RowGather::RowGather(Communicator& group, const std::vector<at::Tensor>& parts, std::vector<int64_t> num_rows) {
  const at::NoGradGuard no_grad;
  SATIN_CHECK_EQ(parts.size(), num_rows.size());
  std::vector<Sliced> sliced;
  std::vector<at::Tensor> mine;
  for (size_t i = 0; i < parts.size(); ++i) {
    std::vector<int64_t> shape = parts[i].sizes().vec();
    shape[0] = num_rows[i];
    wholes_.push_back(at::empty(shape, parts[i].options().requires_grad(false)));
    sliced.push_back({wholes_.back(), rows_each(num_rows[i], group.size()) * row_elements(parts[i])});
    mine.push_back(parts[i].detach().contiguous());
  }
  pending_ = group.all_gather(sliced, mine);
}

std::vector<at::Tensor> RowGather::finish() {
  pending_.wait();
  return std::move(wholes_);
}

RowReduce::RowReduce(Communicator& group, const std::vector<at::Tensor>& wholes, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  if (wholes.empty()) return;
  std::vector<at::Tensor> mine;
  for (const at::Tensor& whole : wholes) mine.push_back(whole.detach().contiguous());
  std::vector<Sliced> sliced;
  int64_t total = 0;
  for (const at::Tensor& whole : all_as(mine, dtype)) {
    const int64_t each = rows_each(whole.size(0), group.size());
    std::vector<int64_t> shape = whole.sizes().vec();
    shape[0] = std::min(each, whole.size(0) - group.rank() * each);
    SATIN_CHECK(shape[0] > 0, "a rank owns no row of ", whole.sizes());
    shapes_.push_back(std::move(shape));
    sliced.push_back({whole, each * row_elements(whole)});
    chunks_.push_back(sliced.back().slice);
    total += chunks_.back();
  }
  mine_ = at::empty({total}, sliced[0].whole.options());
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
