#include "ops/device.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "support/test_support.h"

namespace satin::ops {
namespace {

TEST(ComputesFirstGpu, HasAStreamOfItsOwnWhileItLives) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device";
  const at::Device device(at::kCUDA, 0);
  const auto current = [&] { return c10::impl::VirtualGuardImpl(device.type()).getStream(device); };
  const c10::Stream before = current();
  at::Tensor sum = at::zeros({1 << 20}, at::TensorOptions(at::kFloat).device(device));
  synchronize(device);
  {
    const ComputesFirst first(device);
    EXPECT_NE(current(), before);
    for (int i = 0; i < 100; ++i) sum.add_(1);
    synchronize(device);
  }
  EXPECT_EQ(current(), before);
  EXPECT_TRUE(sum.eq(100).all().item<bool>());
}

}  // namespace
}  // namespace satin::ops
