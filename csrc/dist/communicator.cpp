#include "dist/communicator.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
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

/// chunks [W, c], every rank's slice and what fills up the last, and the flat whole [n]: the same elements, as pairs of
/// one shape (the full chunks, and the last rank's fewer).
std::vector<std::pair<at::Tensor, at::Tensor>> same_elements(const at::Tensor& chunks, const at::Tensor& flat) {
  const int64_t chunk = chunks.size(1), full = flat.numel() / chunk, rest = flat.numel() - full * chunk;
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs{
      {chunks.narrow(0, 0, full), flat.narrow(0, 0, full * chunk).view({full, chunk})}};
  if (rest > 0) pairs.emplace_back(chunks[full].narrow(0, 0, rest), flat.narrow(0, full * chunk, rest));
  return pairs;
}
template <class Slices>
int64_t sum_of_slices(const Slices& wholes) {
  int64_t total = 0;
  for (const auto& of : wholes) total += of.slice;
  return total;
}

/// Slices of all wholes, one after the other, which become the wholes when they are there.
struct OfSlices : Pending::Work {
  OfSlices(Pending gather, at::Tensor all, at::Tensor mine, std::vector<ToGather> wholes)
      : gather(std::move(gather)), all(std::move(all)), mine(std::move(mine)), wholes(std::move(wholes)) {}
  void wait() override {
    const at::NoGradGuard no_grad;
    gather.wait();
    int64_t at = 0;
    for (const ToGather& to : wholes) {
      to.whole.resize_(to.shape);
      for (const auto& [chunk, part] : same_elements(all.narrow(1, at, to.slice), to.whole.view(-1))) part.copy_(chunk);
      at += to.slice;
    }
  }
  Pending gather;
  at::Tensor all, mine;  ///< [W, sum of slices], [the same]
  std::vector<ToGather> wholes;
};

/// A sum of what was packed, which lives until then.
struct OfPacked : Pending::Work {
  OfPacked(Pending sum, at::Tensor packed) : sum(std::move(sum)), packed(std::move(packed)) {}
  void wait() override { sum.wait(); }
  Pending sum;
  at::Tensor packed;
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

Pending Communicator::all_gather(const std::vector<ToGather>& wholes, const std::vector<at::Tensor>& parts) {
  check(wholes, parts);
  if (wholes.empty()) return {};
  const at::NoGradGuard no_grad;
  const int64_t total = sum_of_slices(wholes);
  const at::Tensor mine = at::empty({total}, parts[0].options().requires_grad(false)),
                   all = at::empty({size(), total}, mine.options());
  int64_t at = 0;
  for (size_t i = 0; i < parts.size(); at += wholes[i++].slice)
    mine.narrow(0, at, parts[i].numel()).copy_(parts[i].view(-1));
  return Pending(std::make_shared<OfSlices>(all_gather(all.view(-1), mine), all, mine, wholes));
}

Pending Communicator::reduce_scatter(const at::Tensor& part, const std::vector<Sliced>& wholes) {
  check(part, wholes);
  if (wholes.empty()) return {};
  const at::NoGradGuard no_grad;
  const at::Tensor all = at::empty({size(), part.numel()}, part.options());
  int64_t at = 0;
  for (const auto& [whole, slice] : wholes) {
    for (const auto& [chunk, rows] : same_elements(all.narrow(1, at, slice), whole.view(-1))) chunk.copy_(rows);
    at += slice;
  }
  return Pending(std::make_shared<OfPacked>(reduce_scatter(part, all.view(-1)), all));
}

void Communicator::check(const std::vector<ToGather>& wholes, const std::vector<at::Tensor>& parts) const {
  SATIN_CHECK_EQ(wholes.size(), parts.size(), "all_gather");
  for (size_t i = 0; i < wholes.size(); ++i) {
    const auto& [whole, shape, slice] = wholes[i];
    const int64_t numel = c10::multiply_integers(shape);
    SATIN_CHECK(slice > 0 && slice * size() >= numel && parts[i].is_contiguous() &&
                    parts[i].numel() == std::clamp(numel - rank() * slice, int64_t{0}, slice),
                "all_gather of ", at::IntArrayRef(shape), " by slices of ", slice, ": a part of ", parts[i].sizes());
    SATIN_CHECK(whole.dtype() == parts[0].dtype() && parts[i].dtype() == parts[0].dtype(), "all_gather of ",
                parts[i].dtype(), " into ", whole.dtype(), ", with ", parts[0].dtype());
  }
}

void Communicator::check(const at::Tensor& part, const std::vector<Sliced>& wholes) const {
  if (wholes.empty()) return;
  for (const auto& [whole, slice] : wholes)
    SATIN_CHECK(slice > 0 && slice * size() >= whole.numel() && whole.is_contiguous(), "reduce_scatter of ",
                whole.sizes(), " by slices of ", slice);
  SATIN_CHECK_EQ(part.numel(), sum_of_slices(wholes), "reduce_scatter");
}

}  // namespace satin::dist
