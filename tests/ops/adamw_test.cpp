// AdamW's kernel against PyTorch's own in fp64, and the GPU's bits against the CPU's.
#include "ops/adamw.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include "core/error.h"
#include "support/test_support.h"

namespace satin::ops {
namespace {

constexpr kernels::AdamWBetas kBetas{0.9, 0.95, 1e-8};
// None, a few, vectors and blocks with and without a tail.
constexpr int64_t kSizes[] = {0, 1, 3, 4, 5, 255, 2048, 2052, 4099, 100003};

at::Tensor corrections(int64_t step, const at::TensorOptions& options) {
  const auto t = static_cast<double>(step);
  return at::tensor({1 / (1 - std::pow(kBetas.beta1, t)), 1 / std::sqrt(1 - std::pow(kBetas.beta2, t))}, at::kDouble)
      .to(options);
}

/// Items of all sizes, some clipped, some of them views that no vector fits; of either kind more than a launch takes.
AdamWBatch batch_of(at::ScalarType dtype, const at::Device& device) {
  at::manual_seed(7);
  AdamWBatch batch{{}, kBetas, {}};
  for (int round = 0; round < 150; ++round)
    for (const int64_t n : kSizes) {
      const int64_t offset = round % 3 == 1 ? 1 : 0;
      const auto make = [&](const at::Tensor& values) { return values.to(dtype).to(device).narrow(0, offset, n); };
      const at::Tensor clip = at::full({}, 0.25, at::TensorOptions(dtype).device(device));
      batch.items.push_back({make(at::randn({n + offset})), make(at::randn({n + offset}).mul(1e-2)),
                             make(at::randn({n + offset}).mul(1e-3)), make(at::rand({n + offset}).mul(1e-5)),
                             corrections(1 + round, clip.options()), round % 2 == 0 ? clip : at::Tensor(),
                             1e-3 * (1 + round), round % 4 == 0 ? 0.1 : 0.0});
    }
  return batch;
}

AdamWBatch copy_of(const AdamWBatch& batch, at::ScalarType dtype, const at::Device& device) {
  AdamWBatch copy = batch;
  for (AdamWBatch::Item& item : copy.items)
    for (at::Tensor* tensor : {&item.weight, &item.gradient, &item.mean, &item.square, &item.corrections, &item.clip})
      if (tensor->defined()) *tensor = tensor->to(dtype).to(device).clone();
  return copy;
}

void check_against_pytorch(const at::Device& device) {
  for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 1e-6}, std::pair{at::kDouble, 1e-14}}) {
    const AdamWBatch batch = batch_of(dtype, device);
    const AdamWBatch right = copy_of(batch, at::kDouble, at::kCPU);
    adamw(batch);
    for (size_t i = 0; i < batch.items.size(); ++i) {
      const AdamWBatch::Item& item = batch.items[i];
      AdamWBatch::Item r = right.items[i];
      if (r.weight.numel() == 0) continue;
      if (r.clip.defined()) r.gradient.mul_(r.clip);
      std::vector<at::Tensor> w{r.weight}, g{r.gradient}, m{r.mean}, v{r.square},
          t{at::full({}, 1 + static_cast<double>(i / std::size(kSizes)), at::kFloat)};
      at::_fused_adamw_(w, g, m, v, {}, t, r.rate, kBetas.beta1, kBetas.beta2, r.decay, kBetas.epsilon, false, false);
      for (const auto& [found, wanted] :
           {std::pair{item.weight, r.weight}, {item.mean, r.mean}, {item.square, r.square}})
        EXPECT_TRUE(
            found.cpu().to(at::kDouble).allclose(wanted, tolerance * 4, tolerance * wanted.abs().mean().item<double>()))
            << "item " << i << " of " << wanted.numel() << " in " << dtype << ": "
            << (found.cpu().to(at::kDouble) - wanted).abs().max().item<double>();
    }
  }
}

void check_skipping(const at::Device& device) {
  AdamWBatch batch = batch_of(at::kFloat, device);
  const AdamWBatch before = copy_of(batch, at::kFloat, device);
  batch.skip = at::ones({}, at::TensorOptions(at::kFloat).device(device));
  adamw(batch);
  for (size_t i = 0; i < batch.items.size(); ++i) {
    EXPECT_TRUE(batch.items[i].weight.equal(before.items[i].weight)) << i;
    EXPECT_TRUE(batch.items[i].mean.equal(before.items[i].mean)) << i;
    EXPECT_TRUE(batch.items[i].square.equal(before.items[i].square)) << i;
  }
  batch.skip.zero_();
  adamw(batch);
  EXPECT_FALSE(batch.items.back().weight.equal(before.items.back().weight));
}

TEST(AdamW, AgreesWithPyTorch) { check_against_pytorch(at::kCPU); }
TEST(AdamW, Skips) { check_skipping(at::kCPU); }

TEST(AdamW, RefusesWhatDoesNotAgree) {
  AdamWBatch batch = batch_of(at::kFloat, at::kCPU);
  batch.items.back().mean = batch.items.back().mean.to(at::kDouble);
  EXPECT_THROW(adamw(batch), InternalError);
  batch = batch_of(at::kFloat, at::kCPU);
  batch.items.back().corrections = at::ones({1});
  EXPECT_THROW(adamw(batch), InternalError);
  batch = batch_of(at::kFloat, at::kCPU);
  batch.skip = at::ones({2});
  EXPECT_THROW(adamw(batch), InternalError);
  EXPECT_THROW(adamw(batch_of(at::kBFloat16, at::kCPU)), InternalError);
}

TEST(AdamWGpu, AgreesWithPyTorch) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device";
  check_against_pytorch(at::Device(at::kCUDA, 0));
}
TEST(AdamWGpu, Skips) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device";
  check_skipping(at::Device(at::kCUDA, 0));
}
TEST(AdamWGpu, HasTheBitsOfTheCpu) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device";
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const AdamWBatch cpu = batch_of(dtype, at::kCPU), cuda = batch_of(dtype, at::Device(at::kCUDA, 0));
    adamw(cpu);
    adamw(cuda);
    for (size_t i = 0; i < cpu.items.size(); ++i) {
      EXPECT_TRUE(cuda.items[i].weight.cpu().equal(cpu.items[i].weight)) << i << " in " << dtype;
      EXPECT_TRUE(cuda.items[i].mean.cpu().equal(cpu.items[i].mean)) << i << " in " << dtype;
      EXPECT_TRUE(cuda.items[i].square.cpu().equal(cpu.items[i].square)) << i << " in " << dtype;
    }
  }
}

}  // namespace
}  // namespace satin::ops
