// Ranks as real processes that share the GPUs there are (several may have the same), against sums made here on the CPU.
#include "dist/peer_copies.h"

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/cuda/CUDAContext.h>

#include <cstdlib>

#include "dist/backends.h"
#include "dist/rank_values.h"
#include "dist/ranks.h"
#include "support/test_support.h"

namespace satin::dist {
namespace {

using test::bf16_sum_of_ranks;
using test::check;
using test::rank_values;
using test::sum_of_ranks;

/// The same bits on every rank.
void check_equal_bits(Communicator& group, const at::Tensor& tensor, const std::string& what) {
  const at::Tensor bytes = tensor.cpu().view(at::kByte).to(at::kLong);
  const at::Tensor weighted = bytes.mul(at::arange(bytes.numel()).remainder(1009).add(1));
  const auto texts = group.gather(cat(weighted.sum().item<int64_t>()));
  for (const std::string& text : texts) check(text == texts[0], what + ": ranks differ");
}

int peer_copies(const Launch& launch) {
  auto group = join(launch, at::kCPU, 60);
  const int64_t rank = group->rank(), size = group->size();
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(rank % at::accelerator::deviceCount()));
  at::accelerator::setDeviceIndex(device.index());
  const std::unique_ptr<PeerCopies> copies = PeerCopies::make(*group, device, /*piece_bytes=*/1 << 20);
  check(copies != nullptr, "no peer copies");
  const auto current = [&] { return at::cuda::getCurrentCUDAStream(device.index()); };
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const int64_t n : {1, 5, 1000, 131073, 524289, 1500007}) {  // a few, tails, one piece, several
      const std::string name = cat(at::toString(dtype), " ", n);
      const at::Tensor sums = sum_of_ranks(size, n, dtype);
      const double tolerance = dtype == at::kBFloat16 ? 1e-2 : 1e-5;  // additions may be in another order
      at::Tensor tensor = rank_values(rank, n, dtype).to(device);
      copies->all_reduce({tensor}, dtype).block(current());
      check(size == 2 ? tensor.cpu().equal(sums) : tensor.cpu().allclose(sums, tolerance, tolerance),
            "all_reduce " + name);
      check_equal_bits(*group, tensor, "all_reduce " + name);

      at::Tensor in_bf16 = rank_values(rank, n, dtype).to(device);
      copies->all_reduce({in_bf16}, at::kBFloat16).block(current());
      const at::Tensor right = bf16_sum_of_ranks(size, n, dtype);
      check(size == 2 ? in_bf16.cpu().equal(right) : in_bf16.cpu().allclose(right, 1e-2, 1e-2),
            "all_reduce in bf16 " + name);
      check_equal_bits(*group, in_bf16, "all_reduce in bf16 " + name);

      const at::Tensor whole = at::empty({size * n}, tensor.options()), mine = rank_values(rank, n, dtype).to(device);
      copies->all_gather(whole, mine).block(current());
      const at::Tensor got = whole.cpu();
      for (int64_t i = 0; i < size; ++i)
        check(got.narrow(0, i * n, n).equal(rank_values(i, n, dtype)), "all_gather " + name);

      const int64_t few = n / size + 1;
      const at::Tensor part = at::empty({few}, tensor.options());
      copies->reduce_scatter(part, rank_values(rank, size * few, dtype).to(device)).block(current());
      const at::Tensor slice = sum_of_ranks(size, size * few, dtype).narrow(0, rank * few, few);
      check(part.cpu().allclose(slice, tolerance, tolerance), "reduce_scatter " + name);
    }
  }
  // Other dtypes, and from each rank to all.
  at::Tensor counts = at::full({3, 2}, rank + 1, at::TensorOptions(at::kLong).device(device));
  copies->all_reduce({counts}, at::kLong).block(current());
  check(counts.eq(size * (size + 1) / 2).all().item<bool>(), "integers");
  for (int64_t root = 0; root < size; ++root)
    for (const int64_t n : {7, 1500007}) {
      const at::Tensor sent = rank_values(rank, n, at::kFloat).to(device);
      copies->broadcast(sent, root).block(current());
      check(sent.cpu().equal(rank_values(root, n, at::kFloat)), cat("broadcast ", n, " from ", root));
    }
  // Lists: a slice of each goes in one piece, unaligned ones too, and many wait for each other in another order.
  for (int round = 0; round < 3; ++round) {
    std::vector<std::vector<at::Tensor>> lists(4);
    std::vector<at::cuda::CUDAEvent> done;
    for (int64_t i = 0; i < 4; ++i) {  // every other one is of fp32
      const auto dtype = i % 2 == 0 ? at::kBFloat16 : at::kFloat;
      for (const int64_t n : {int64_t{3}, 70001 + i, int64_t{12}, int64_t{2000000}})
        lists[static_cast<size_t>(i)].push_back(rank_values(rank, n + 1, dtype).to(device).narrow(0, 1, n));
      done.push_back(copies->all_reduce(lists[static_cast<size_t>(i)], at::kBFloat16));
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
  // What is computed before and after on the current stream.
  at::Tensor late = at::zeros({1 << 22}, at::TensorOptions(at::kFloat).device(device));
  for (int i = 0; i < 50; ++i) {
    late.add_(1);
    copies->all_reduce({late}, at::kFloat).block(current());
    late.div_(static_cast<double>(size));
  }
  check(late.eq(50).all().item<bool>(), "in the stream's order");
  copies->close(*group);
  return 0;
}
const test::RegisterJob kPeerCopies("peer_copies", peer_copies);

int not_wanted(const Launch& launch) {
  auto group = join(launch, at::kCPU, 60);
  if (group->rank() == 1) setenv("SATIN_COPY_ENGINES", "0", 1);
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(group->rank() % at::accelerator::deviceCount()));
  check(PeerCopies::make(*group, device) == nullptr, "made though rank 1 said no");
  return 0;
}
const test::RegisterJob kNotWanted("not_wanted", not_wanted);

class PeerCopiesOf : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (!at::hasCUDA() || at::accelerator::deviceCount() == 0) GTEST_SKIP() << "needs a GPU";
    if (!has_gloo()) GTEST_SKIP() << "this build has no Gloo (libgloo-dev)";
  }
};
TEST_P(PeerCopiesOf, SumAndGather) { test::run_job("peer_copies", GetParam()); }
TEST_P(PeerCopiesOf, AreMadeByAllOrNone) { test::run_job("not_wanted", GetParam()); }
INSTANTIATE_TEST_SUITE_P(Sizes, PeerCopiesOf, testing::Values(2, 3, 4));

}  // namespace
}  // namespace satin::dist
