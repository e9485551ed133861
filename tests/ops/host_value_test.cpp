#include "ops/host_value.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include "core/clock.h"
#include "ops/device.h"
#include "support/test_support.h"

namespace satin::ops {
namespace {

TEST(HostValue, IsWhatItWasWhenItWasQueued) {
  at::Tensor number = at::full({}, 2.5, at::TensorOptions(at::kFloat).requires_grad(true));
  const HostValue value(number);
  number.detach().fill_(7);
  EXPECT_EQ(value.get(), 2.5);
  EXPECT_EQ(HostValue(at::full({1}, 3, at::kLong).squeeze()).get(), 3);
}

TEST(HostValueGpu, DoesNotWaitForWhatWasQueuedAfter) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device";
  const at::Device device(at::kCUDA, 0);
  at::Tensor x = at::rand({4096, 4096}, at::TensorOptions(at::kFloat).device(device));
  const auto work = [&] {
    for (int i = 0; i < 200; ++i) x = at::mm(x, x).clamp(-1, 1);
  };
  work();
  synchronize(device);
  const at::Tensor number = at::full({}, 2.5, x.options());
  const double begin_s = now_s();
  const HostValue value(number);
  work();
  const double queued_s = now_s();
  EXPECT_EQ(value.get(), 2.5);
  const double read_s = now_s();
  synchronize(device);
  const double end_s = now_s();
  EXPECT_LT(read_s - queued_s, 0.25 * (end_s - begin_s)) << "of " << end_s - begin_s << " s";
}

}  // namespace
}  // namespace satin::ops
