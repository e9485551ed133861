// PyTorch's own detector of device synchronisation, set to throw.
#include <c10/cuda/CUDAFunctions.h>

#include "losses/cross_entropy.h"
#include "losses/distillation.h"
#include "losses/head.h"
#include "losses/loss_support.h"
#include "losses/neighbourhood.h"
#include "losses/smoothness.h"

namespace satin::losses {
namespace {

TEST(LossesGpu, NothingWaitsForTheDevice) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device";
  constexpr int64_t N = 64, V = 1000, H = 32;
  const CrossEntropy ce;
  const Distillation kd(1);
  const Smoothness smooth(40, 2);
  const auto cuda = at::device(at::kCUDA);
  auto random = [&](int64_t rows) { return at::randn({rows, H}, cuda.dtype(at::kBFloat16)); };
  HeadInputs in{random(N), random(V), random(N), random(V), at::zeros({N}, cuda.dtype(at::kLong)), at::ones({N}, cuda)};
  CleanWindows clean{at::randint(V, {2, 32}, at::kLong), {}, {0, 1}};
  at::Tensor tokens = clean.tokens.cuda(), head = random(V), hidden = random(64).view({2, 32, H});
  const Neighbourhood neighbourhood(config::Neighbourhood{}, V, {0}, 1, 500);
  const auto once = [&] {
    head_losses(in, {{&ce, 1}, {&kd, 1}, {&smooth, 1}}, 16);
    neighbourhood.perturb(tokens, clean, [&](const at::Tensor&) { return SourceStates{hidden, head}; });
  };
  once();  // first calls allocate
  auto& state = c10::cuda::warning_state();
  state.set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR);
  EXPECT_THROW(in.weights.sum().item<float>(), c10::Error) << "the detector does not work";
  EXPECT_NO_THROW(once());
  state.set_sync_debug_mode(c10::cuda::SyncDebugMode::L_DISABLED);
}

}  // namespace
}  // namespace satin::losses
