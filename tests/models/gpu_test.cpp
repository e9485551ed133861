// The decoder on a CUDA device against the same weights on the CPU.
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#ifdef SATIN_WITH_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#endif

#include "models/decoder.h"
#include "models/tiny_model.h"
#include "ops/device.h"
#include "support/test_support.h"

namespace satin::models {
namespace {

#define SATIN_NEEDS_GPU() \
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device"

const at::Device kCuda(at::kCUDA, 0);

ModelConfig config(bool grouped) {
  ModelConfig c = tiny_config();
  c.vocab_size = 1000;
  c.hidden_size = 256;
  c.intermediate_size = 512;
  c.num_layers = 3;
  c.num_heads = 4;
  c.num_kv_heads = grouped ? 2 : 4;
  c.head_dim = 64;
  c.max_position_embeddings = 512;
  return c;
}

/// The same random weights for every device and dtype.
Decoder build(const ModelConfig& c, const nn::BuildOptions& options) {
  Decoder decoder(c, nn::dense_linear_factory(), options);
  initialise_randomly(decoder, 5);
  const at::NoGradGuard no_grad;
  for (const nn::Parameter& parameter : decoder.parameters().all()) at::Tensor(parameter.value).mul_(2);
  return decoder;
}

double relative(const at::Tensor& found, const at::Tensor& expected) {
  return ((found.cpu().to(at::kDouble) - expected.to(at::kDouble)).norm() / expected.to(at::kDouble).norm())
      .item<double>();
}

/// Of other lengths in each sequence. Ids that rise are taken by their lengths in bf16, others by a mask.
at::Tensor documents(int64_t batch, int64_t num_tokens, bool rising = true) {
  std::vector<at::Tensor> ids;
  for (int64_t i = 0; i < batch; ++i) ids.push_back(at::arange(num_tokens, at::kLong).floor_divide(37 + 20 * i));
  return at::stack(ids).mul(rising ? 1 : -1);
}

struct Outcome {
  at::Tensor logits;
  std::map<std::string, at::Tensor> gradients;
};

Outcome forward_and_backward(Decoder& decoder, const at::Tensor& tokens, const at::Tensor& ids) {
  const at::Tensor logits = decoder.logits(decoder.hidden(tokens, {.document_ids = ids}));
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  logits.log_softmax(-1).gather(-1, tokens.to(logits.device()).unsqueeze(-1)).mean().backward();
  Outcome outcome{logits.detach().cpu(), {}};
  for (const nn::Parameter& parameter : decoder.parameters().all()) {
    outcome.gradients[parameter.name] = parameter.value.grad().cpu();
    parameter.value.mutable_grad() = at::Tensor();
  }
  return outcome;
}

struct Errors {
  double logits, gradients;  ///< relative, by norm; the worst parameter's
};

Errors errors(const Outcome& found, const Outcome& expected) {
  Errors e{relative(found.logits, expected.logits), 0};
  for (const auto& [name, gradient] : expected.gradients)
    e.gradients = std::max(e.gradients, relative(found.gradients.at(name), gradient));
  return e;
}

TEST(DecoderGpu, EqualsTheCpu) {
  SATIN_NEEDS_GPU();
  for (const bool grouped : {false, true}) {
    const ModelConfig c = config(grouped);
    Decoder cpu = build(c, {.trainable = true});
    Decoder cpu_narrow = build(c, {.compute_dtype = at::kBFloat16, .trainable = true});
    Decoder cuda = build(c, {.device = kCuda, .trainable = true});
    Decoder cuda_narrow = build(c, {.device = kCuda, .compute_dtype = at::kBFloat16, .trainable = true});
    const at::Tensor tokens = random_tokens(2, 200, c.vocab_size);
    for (const at::Tensor& ids : {at::Tensor(), documents(2, 200), documents(2, 200, /*rising=*/false)}) {
      const Outcome expected = forward_and_backward(cpu, tokens, ids);
      const Errors wide = errors(forward_and_backward(cuda, tokens, ids), expected);
      EXPECT_LT(wide.logits, 1e-5);
      EXPECT_LT(wide.gradients, 4e-5);
      // How far bf16 is off depends on the weights, so the measure is bf16 on the CPU.
      const Errors usual = errors(forward_and_backward(cpu_narrow, tokens, ids), expected);
      const Errors narrow = errors(forward_and_backward(cuda_narrow, tokens, ids), expected);
      EXPECT_LT(narrow.logits, 1.3 * usual.logits);
      EXPECT_LT(narrow.gradients, 1.5 * usual.gradients);
      const at::NoGradGuard no_grad;  // logits() multiplies narrow operands into fp32 then
      const at::Tensor frozen = cuda_narrow.logits(cuda_narrow.hidden(tokens, {.document_ids = ids}));
      EXPECT_EQ(frozen.scalar_type(), at::kFloat);
      EXPECT_LT(relative(frozen, expected.logits), 1.3 * usual.logits);
      std::printf("%s%s: fp32 %.1e, gradients %.1e; bf16 %.1e, gradients %.1e (CPU: %.1e, %.1e)\n",
                  grouped ? "grouped" : "ungrouped", ids.defined() ? ", documents" : "", wide.logits, wide.gradients,
                  narrow.logits, narrow.gradients, usual.logits, usual.gradients);
    }
  }
}

TEST(DecoderGpu, ContinuesFromACache) {
  SATIN_NEEDS_GPU();
  const at::NoGradGuard no_grad;
  for (const auto& [compute, tolerance] : {std::pair{at::kFloat, 1e-5}, std::pair{at::kBFloat16, 0.02}}) {
    Decoder decoder = build(config(true), {.device = kCuda, .compute_dtype = compute});
    const at::Tensor tokens = random_tokens(2, 50, 1000);
    const at::Tensor whole = decoder.logits(decoder.hidden(tokens)).cpu();
    KvCache cache;
    for (const int64_t step : {20, 1, 13, 1, 15}) {
      const int64_t from = cache.length;
      const at::Tensor part = decoder.logits(decoder.hidden(tokens.narrow(1, from, step), {.cache = &cache}));
      EXPECT_LT(relative(part, whole.narrow(1, from, step)), tolerance);
    }
  }
}

#ifdef SATIN_WITH_CUDA
TEST(DecoderGpu, StepsInPlace) {
  SATIN_NEEDS_GPU();
  const at::NoGradGuard no_grad;
  for (const bool grouped : {false, true}) {
    Decoder decoder = build(config(grouped), {.device = kCuda, .compute_dtype = at::kBFloat16});
    if (!decoder.can_step()) GTEST_SKIP() << "needs sm_90";
    const at::Tensor tokens = random_tokens(2, 50, 1000);
    int64_t plain_bytes = 0;
    // A number that bfloat16 has otherwise here and there may fall to the next of int4's few levels.
    for (const auto& [format, tolerance] :
         {std::pair(std::optional<ops::ActivationFormat>(), 0.03), std::pair(kv_cache_format("int8", ""), 0.05),
          std::pair(kv_cache_format("int4", ""), 0.3)}) {
      decoder.store_keys_and_values_as(format);
      const at::Tensor whole = decoder.logits(decoder.hidden(tokens)).cpu();
      std::vector<KvCache> caches(2);
      for (int64_t i = 0; i < 2; ++i) decoder.hidden(tokens.narrow(0, i, 1).narrow(1, 0, 20), {.cache = &caches[i]});
      StepState state = decoder.start_steps({&caches[0], &caches[1]}, 50);
      if (!format) plain_bytes = state.cache_bytes();
      std::printf("%ld bytes of %ld\n", static_cast<long>(state.cache_bytes()), static_cast<long>(plain_bytes));
      for (int64_t at = 20; at < 50; ++at)
        EXPECT_LT(relative(decoder.step(tokens.select(1, at).to(kCuda), state), whole.select(1, at)), tolerance)
            << at;  // of one token
    }
  }
}

TEST(DecoderGpu, NeverWaitsForTheDevice) {
  SATIN_NEEDS_GPU();
  Decoder decoder = build(config(true), {.device = kCuda, .compute_dtype = at::kBFloat16, .trainable = true});
  const at::Tensor tokens = random_tokens(2, 128, 1000).to(kCuda), ids = documents(2, 128), on_device = ids.to(kCuda);
  const auto step = [&] {
    for (const at::Tensor& document_ids : {at::Tensor(), ids, on_device})
      decoder.logits(decoder.hidden(tokens, {.document_ids = document_ids})).sum().backward();
  };
  step();  // makes the rotary tables
  auto& state = c10::cuda::warning_state();
  state.set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR);
  EXPECT_THROW(tokens.max().item<int64_t>(), c10::Error) << "the detector does not work";
  EXPECT_NO_THROW(step());
  state.set_sync_debug_mode(c10::cuda::SyncDebugMode::L_DISABLED);
}

TEST(DecoderGpu, StoresNoAttentionMatrix) {
  SATIN_NEEDS_GPU();
  ModelConfig c = config(true);
  c.num_layers = 1;
  c.num_heads = 16;
  c.head_dim = 32;
  Decoder decoder = build(c, {.device = kCuda, .compute_dtype = at::kBFloat16, .trainable = true});
  constexpr int64_t kBatch = 2, kTokens = 4096;
  const at::Tensor tokens = random_tokens(kBatch, kTokens, 1000).to(kCuda);
  for (const at::Tensor& ids : {at::Tensor(), documents(kBatch, kTokens).to(kCuda)}) {
    c10::cuda::CUDACachingAllocator::resetPeakStats(0);
    decoder.hidden(tokens, {.document_ids = ids}).sum().backward();
    const auto peak = c10::cuda::CUDACachingAllocator::getDeviceStats(0).allocated_bytes[0].peak;
    const int64_t matrix = kBatch * c.num_heads * kTokens * kTokens * 2;
    std::printf("peak %.0f MB, a matrix of all weights has %.0f MB\n", peak / 1e6, matrix / 1e6);
    EXPECT_LT(peak, matrix);
  }
}
#endif

TEST(DecoderGpu, ReadingOnFromACacheRepeats) {
  SATIN_NEEDS_GPU();
  const at::NoGradGuard no_grad;
  const ops::RepeatableDecoding repeatable;
  Decoder decoder = build(config(true), {.device = kCuda, .compute_dtype = at::kBFloat16});
  at::manual_seed(6);
  const at::Tensor context = at::randint(1000, {16, 128}, at::kLong), tokens = at::randint(1000, {16, 8}, at::kLong);
  EXPECT_FALSE(at::globalContext().userEnabledCuDNNSDP());
  at::Tensor first;
  for (int repeat = 0; repeat < 20; ++repeat) {
    KvCache cache;
    std::vector<at::Tensor> logits = {decoder.logits(decoder.hidden(context, {.cache = &cache}).select(1, 127))};
    for (int64_t t = 0; t < tokens.size(1); ++t)
      logits.push_back(decoder.logits(decoder.hidden(tokens.narrow(1, t, 1), {.cache = &cache}).select(1, 0)));
    const at::Tensor all = at::stack(logits);
    if (!first.defined()) first = all;
    ASSERT_TRUE(at::equal(all, first)) << repeat;
  }
}

}  // namespace
}  // namespace satin::models
