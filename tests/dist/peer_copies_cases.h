// What every rank asks of its copies, on GPUs (peer_copies_test.cpp) and emulated (peer_copies_emulation_test.cpp).
// PeerCopies and CUDA's functions are whoever includes this one's.
#pragma once
#include <ATen/ATen.h>

#include "core/error.h"
#include "dist/communicator.h"
#include "dist/rank_values.h"

namespace satin::dist {

/// The same bits on every rank.
inline void check_equal_bits(Communicator& group, const at::Tensor& tensor, const std::string& what) {
  const at::Tensor bytes = tensor.cpu().view(at::kByte).to(at::kLong);
  const at::Tensor weighted = bytes.mul(at::arange(bytes.numel()).remainder(1009).add(1));
  const auto texts = group.gather(cat(weighted.sum().item<int64_t>()));
  for (const std::string& text : texts) test::check(text == texts[0], what + ": ranks differ");
}

/// Sums, gathers and broadcasts of up to `most` numbers (odd, and more than a piece has), against the CPU's.
template <class Copies>
void check_peer_copies(Copies& copies, Communicator& group, c10::Device device, int64_t most) {
  using namespace test;
  const int64_t rank = group.rank(), size = group.size();
  const auto current = [&] { return at::cuda::getCurrentCUDAStream(device.index()); };
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const int64_t n :
         {int64_t{1}, int64_t{5}, int64_t{1000}, most / 12, most / 3, most}) {  // tails, one piece, several
      const std::string name = cat(at::toString(dtype), " ", n);
      const at::Tensor sums = sum_of_ranks(size, n, dtype);
      const double tolerance = dtype == at::kBFloat16 ? 1e-2 : 1e-5;  // additions may be in another order
      at::Tensor tensor = rank_values(rank, n, dtype).to(device);
      copies.all_reduce({tensor}, dtype).block(current());
      check(size == 2 ? tensor.cpu().equal(sums) : tensor.cpu().allclose(sums, tolerance, tolerance),
            "all_reduce " + name);
      check_equal_bits(group, tensor, "all_reduce " + name);

      at::Tensor in_bf16 = rank_values(rank, n, dtype).to(device);
      copies.all_reduce({in_bf16}, at::kBFloat16).block(current());
      const at::Tensor right = bf16_sum_of_ranks(size, n, dtype);
      check(size == 2 ? in_bf16.cpu().equal(right) : in_bf16.cpu().allclose(right, 1e-2, 1e-2),
            "all_reduce in bf16 " + name);
      check_equal_bits(group, in_bf16, "all_reduce in bf16 " + name);

      const at::Tensor whole = at::empty({size * n}, tensor.options()), mine = rank_values(rank, n, dtype).to(device);
      copies.all_gather({{whole, n}}, {mine}).block(current());
      const at::Tensor got = whole.cpu();
      for (int64_t i = 0; i < size; ++i)
        check(got.narrow(0, i * n, n).equal(rank_values(i, n, dtype)), "all_gather " + name);

      const int64_t few = n / size + 1;
      const at::Tensor part = at::empty({few}, tensor.options());
      copies.reduce_scatter(part, {{rank_values(rank, size * few, dtype).to(device), few}}).block(current());
      const at::Tensor slice = sum_of_ranks(size, size * few, dtype).narrow(0, rank * few, few);
      check(part.cpu().allclose(slice, tolerance, tolerance), "reduce_scatter " + name);
    }
  }
  // Other dtypes, and from each rank to all.
  at::Tensor counts = at::full({3, 2}, rank + 1, at::TensorOptions(at::kLong).device(device));
  copies.all_reduce({counts}, at::kLong).block(current());
  check(counts.eq(size * (size + 1) / 2).all().item<bool>(), "integers");
  for (int64_t root = 0; root < size; ++root)
    for (const int64_t n : {int64_t{7}, most}) {
      const at::Tensor sent = rank_values(rank, n, at::kFloat).to(device);
      copies.broadcast(sent, root).block(current());
      check(sent.cpu().equal(rank_values(root, n, at::kFloat)), cat("broadcast ", n, " from ", root));
    }
  // Lists: a slice of each goes in one piece, unaligned ones too, and many wait for each other in another order.
  for (int round = 0; round < 3; ++round) {
    std::vector<std::vector<at::Tensor>> lists(4);
    std::vector<at::cuda::CUDAEvent> done;
    for (int64_t i = 0; i < 4; ++i) {  // every other one is of fp32
      const auto dtype = i % 2 == 0 ? at::kBFloat16 : at::kFloat;
      for (const int64_t n : {int64_t{3}, most / 20 + i, int64_t{12}, most + most / 3})
        lists[static_cast<size_t>(i)].push_back(rank_values(rank, n + 1, dtype).to(device).narrow(0, 1, n));
      done.push_back(copies.all_reduce(lists[static_cast<size_t>(i)], at::kBFloat16));
    }
    for (size_t i = lists.size(); i-- > 0;) {
      done[i].block(current());
      for (const at::Tensor& tensor : lists[i]) {
        const at::Tensor sums =
            bf16_sum_of_ranks(size, tensor.numel() + 1, tensor.scalar_type()).narrow(0, 1, tensor.numel());
        check(tensor.cpu().allclose(sums, 1e-2, 1e-2), cat("list ", i, ", ", tensor.numel()));
      }
    }
  }
  // Slices of lists, of which the last rank has fewer, in pieces that begin and end within them.
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    std::vector<Sliced> gathered, summed;
    std::vector<at::Tensor> parts;
    int64_t all = 0;
    for (const int64_t n : {2 * size - 1, most / 5, int64_t{1}, most, size}) {
      const int64_t slice = (n + size - 1) / size, mine = std::clamp(n - rank * slice, int64_t{0}, slice);
      gathered.push_back({at::zeros({n}, at::TensorOptions(dtype).device(device)), slice});
      parts.push_back(rank_values(0, n, dtype).narrow(0, std::min(rank * slice, n), mine).to(device));
      summed.push_back({rank_values(rank, n, dtype).to(device), slice});
      all += slice;
    }
    const at::Tensor part = at::empty({all}, parts[0].options());
    at::cuda::CUDAEvent gather = copies.all_gather(gathered, parts), sum = copies.reduce_scatter(part, summed);
    sum.block(current());
    gather.block(current());
    int64_t at = 0;
    for (const auto& [whole, slice] : gathered) {
      const int64_t n = whole.numel(), mine = std::clamp(n - rank * slice, int64_t{0}, slice);
      check(whole.cpu().equal(rank_values(0, n, dtype)), cat("gathered slices of ", n));
      const at::Tensor sums = sum_of_ranks(size, n, dtype).narrow(0, std::min(rank * slice, n), mine);
      check(part.narrow(0, at, mine).cpu().allclose(sums, 1e-2, 1e-2), cat("summed slices of ", n));
      at += slice;
    }
  }
  // What is computed before and after on the current stream.
  at::Tensor late = at::zeros({2 * most}, at::TensorOptions(at::kFloat).device(device));
  for (int i = 0; i < 50; ++i) {
    late.add_(1);
    copies.all_reduce({late}, at::kFloat).block(current());
    late.div_(static_cast<double>(size));
  }
  check(late.eq(50).all().item<bool>(), "in the stream's order");
}

}  // namespace satin::dist
