// Ranks as real processes that share the GPUs there are (several may have the same), against sums made here on the CPU.
#include "dist/peer_copies.h"

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/cuda/CUDAContext.h>

#include <cstdlib>

#include "dist/backends.h"
#include "dist/peer_copies_cases.h"
#include "dist/ranks.h"
#include "support/test_support.h"

namespace satin::dist {
namespace {

using test::check;

int peer_copies(const Launch& launch) {
  auto group = join(launch, at::kCPU, 60);
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(group->rank() % at::accelerator::deviceCount()));
  at::accelerator::setDeviceIndex(device.index());
  const std::unique_ptr<PeerCopies> copies = PeerCopies::make(*group, device, /*piece_bytes=*/1 << 20);
  check(copies != nullptr, "no peer copies");
  check_peer_copies(*copies, *group, device, 1500007);
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
