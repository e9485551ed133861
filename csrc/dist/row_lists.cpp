#include "dist/row_lists.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"

namespace satin::dist {
namespace {

constexpr int64_t kPacked = 1 << 20;  ///< numbers of a list that is summed as one tensor

int64_t rows_each(int64_t rows, int64_t size) { return (rows + size - 1) / size; }
/// chunks [W, c], every rank's rows and what fills up the last, and the flat matrix [n]: the same elements, as pairs of
/// one shape (the full chunks, and the last rank's fewer).
std::vector<std::pair<at::Tensor, at::Tensor>> same_elements(const at::Tensor& chunks, const at::Tensor& flat) {
  const int64_t chunk = chunks.size(1), full = flat.numel() / chunk, rest = flat.numel() - full * chunk;
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs{
      {chunks.narrow(0, 0, full), flat.narrow(0, 0, full * chunk).view({full, chunk})}};
  if (rest > 0) pairs.emplace_back(chunks[full].narrow(0, 0, rest), flat.narrow(0, full * chunk, rest));
  return pairs;
}

int64_t row_elements(const at::Tensor& matrix) { return matrix.size(0) == 0 ? 0 : matrix.numel() / matrix.size(0); }

}  // namespace

RowGather::RowGather(Communicator& group, const std::vector<at::Tensor>& parts, std::vector<int64_t> num_rows) {
  const at::NoGradGuard no_grad;
  SATIN_CHECK_EQ(parts.size(), num_rows.size());
  int64_t total = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    Matrix matrix{parts[i].sizes().vec(), rows_each(num_rows[i], group.size()) * row_elements(parts[i])};
    matrix.shape[0] = num_rows[i];
    total += matrix.chunk;
    matrices_.push_back(std::move(matrix));
  }
  if (parts.empty()) return;
  mine_ = at::empty({total}, parts[0].options().requires_grad(false));
  int64_t at = 0;
  for (size_t i = 0; i < parts.size(); at += matrices_[i++].chunk)
    mine_.narrow(0, at, parts[i].numel()).copy_(parts[i].reshape(-1));
  all_ = at::empty({group.size(), total}, mine_.options());
  pending_ = group.all_gather(all_.view(-1), mine_);
}

std::vector<at::Tensor> RowGather::finish() {
  const at::NoGradGuard no_grad;
  pending_.wait();
  std::vector<at::Tensor> wholes;
  int64_t at = 0;
  for (const Matrix& matrix : matrices_) {
    wholes.push_back(at::empty(matrix.shape, all_.options()));
    for (const auto& [chunk, rows] : same_elements(all_.narrow(1, at, matrix.chunk), wholes.back().view(-1)))
      rows.copy_(chunk);
    at += matrix.chunk;
  }
  mine_ = all_ = at::Tensor();
  return wholes;
}

RowReduce::RowReduce(Communicator& group, const std::vector<at::Tensor>& wholes, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  int64_t total = 0;
  for (const at::Tensor& whole : wholes) {
    const int64_t each = rows_each(whole.size(0), group.size());
    std::vector<int64_t> shape = whole.sizes().vec();
    shape[0] = std::min(each, whole.size(0) - group.rank() * each);
    SATIN_CHECK(shape[0] > 0, "a rank owns no row of ", whole.sizes());
    shapes_.push_back(std::move(shape));
    chunks_.push_back(each * row_elements(whole));
    total += chunks_.back();
  }
  if (wholes.empty()) return;
  const auto options = wholes[0].options().dtype(dtype).requires_grad(false);
  all_ = at::empty({group.size(), total}, options);
  int64_t at = 0;
  for (size_t i = 0; i < wholes.size(); at += chunks_[i++]) {
    const at::Tensor flat = wholes[i].reshape(-1), chunks = all_.narrow(1, at, chunks_[i]);
    for (const auto& [chunk, rows] : same_elements(chunks, flat)) chunk.copy_(rows);
    if (const int64_t rest = flat.numel() % chunks_[i]; rest > 0) chunks[-1].narrow(0, rest, chunks_[i] - rest).zero_();
  }
  mine_ = at::empty({total}, options);
  pending_ = group.reduce_scatter(mine_, all_.view(-1));
}

std::vector<at::Tensor> RowReduce::finish() {
  pending_.wait();
  std::vector<at::Tensor> parts;
  int64_t at = 0;
  for (size_t i = 0; i < shapes_.size(); at += chunks_[i++])
    parts.push_back(mine_.narrow(0, at, c10::multiply_integers(shapes_[i])).view(shapes_[i]));
  all_ = at::Tensor();
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
