// PyTorch's dispatcher is the registry: every operator of namespace satin has a CPU kernel, a CUDA one when built, and
// a typed wrapper. That they are found at all shows that linking the static library keeps the registrations.
#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>

#include <set>

#include "ops/logit_losses.h"
#include "ops/ops.h"

namespace satin {
namespace {

TEST(Dispatcher, EveryOperatorIsComplete) {
  // The first call of any wrapper links and runs the registrations.
  (void)ops::clip_search(at::zeros({1, 8}), {ops::Grid::kSymmetric, 2, 8});
  (void)ops::top_k(at::zeros({1, 8}), 1);
  std::set<std::string> found;
  for (const c10::OperatorName& name : c10::Dispatcher::singleton().getAllOpNames()) {
    if (name.name.rfind("satin::", 0) != 0) continue;
    found.insert(name.name.substr(7));
    const auto op = c10::Dispatcher::singleton().findOp(name);
    ASSERT_TRUE(op.has_value());
    EXPECT_TRUE(op->hasKernelForDispatchKey(c10::DispatchKey::CPU)) << name.name << " has no CPU kernel";
#ifdef SATIN_WITH_CUDA
    EXPECT_TRUE(op->hasKernelForDispatchKey(c10::DispatchKey::CUDA)) << name.name << " has no CUDA kernel";
#endif
  }
  const auto wrapped = ops::wrapped_operators();
  EXPECT_EQ(found, std::set<std::string>(wrapped.begin(), wrapped.end())) << "every operator has a wrapper in ops.h";
}

}  // namespace
}  // namespace satin
