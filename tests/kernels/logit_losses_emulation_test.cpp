// The CUDA kernels of logit_losses.h run as C++ (kernels/cuda/emulation.h) against the CPU kernels in double. Whether
// the GPU agrees is tested in tests/losses, on a GPU.
#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/logit_losses.cu"
#include "kernels/cuda/stored_losses.cu"
#include "kernels/cuda/top_k.cu"

namespace satin::kernels {
namespace {

/// Rows that collect in different ways: random, rising (every value is a new best), equal, with -inf, with NaN.
template <class S>
std::vector<S> hostile_rows(int64_t V, uint64_t seed, bool with_nan) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<S> x;
  for (int kind = 0; kind < 6; ++kind)
    for (int64_t i = 0; i < V; ++i) {
      const double value = 2 * normal(random);
      x.push_back(static_cast<S>(kind == 0   ? value
                                 : kind == 1 ? static_cast<double>(i) * 0.01
                                 : kind == 2 ? 1
                                 : kind == 3 ? (i % 3 == 0 ? -INFINITY : value)
                                 : kind == 4 ? std::floor(value)
                                             : (i == V / 2 && with_nan ? NAN : 1e4 * value)));
    }
  return x;
}
constexpr int64_t kRows = 6;

TEST(LogitLossesEmulation, TopKIsThatOfTheCpu) {
  for (const int64_t V : {5, 61, 1028, 8200}) {
    const std::vector<float> x = hostile_rows<float>(V, 1, true);
    for (const int64_t k : {int64_t{1}, int64_t{40}, int64_t{300}}) {
      if (k > V) continue;
      std::vector<float> want(kRows * k), got(kRows * k);
      std::vector<int64_t> want_ids(kRows * k), got_ids(kRows * k);
      top_k_cpu<float>({kRows, V}, k, 0, kRows, x.data(), want.data(), want_ids.data());
      top_k_cuda({kRows, V}, k, Dtype::kFloat, x.data(), got.data(), got_ids.data(), nullptr);
      EXPECT_EQ(got_ids, want_ids) << V << " " << k;
      std::vector<double> wide(x.begin(), x.end()), got_wide(kRows * k);
      top_k_cuda({kRows, V}, k, Dtype::kDouble, wide.data(), got_wide.data(), got_ids.data(), nullptr);
      EXPECT_EQ(got_ids, want_ids) << V << " " << k << " double";
    }
  }
}

// Zero has two signs and one rank: as the first threshold it must not lose its equals.
TEST(LogitLossesEmulation, TopKOfZeros) {
  constexpr int64_t V = 2500, k = 40;
  for (const int num_larger : {0, 7, 39, 40, 41}) {
    std::vector<float> x(V), want(k), got(k);
    for (int64_t i = 0; i < V; ++i) x[static_cast<size_t>(i)] = i % 3 == 0 ? -0.0f : i % 3 == 1 ? 0.0f : -1e-40f;
    for (int i = 0; i < num_larger; ++i) x[static_cast<size_t>(V - 1 - 17 * i)] = 1e-45f;
    std::vector<int64_t> want_ids(k), got_ids(k);
    top_k_cpu<float>({1, V}, k, 0, 1, x.data(), want.data(), want_ids.data());
    top_k_cuda({1, V}, k, Dtype::kFloat, x.data(), got.data(), got_ids.data(), nullptr);
    EXPECT_EQ(got_ids, want_ids) << num_larger;
    EXPECT_EQ(got, want) << num_larger;
    std::vector<double> wide(x.begin(), x.end()), got_wide(k);
    top_k_cuda({1, V}, k, Dtype::kDouble, wide.data(), got_wide.data(), got_ids.data(), nullptr);
    EXPECT_EQ(got_ids, want_ids) << num_larger;
  }
}

std::vector<LogitLosses> mixes() {
  std::vector<LogitLosses> all;
  all.push_back({.cross_entropy = 0.3});
  all.push_back({.distillation = 1});
  all.push_back({.cross_entropy = 0.3, .distillation = 1, .smoothness = 0.5, .smoothness_temperature = 2, .top_k = 40});
  all.push_back({.distillation = 0.7, .temperature = 2, .share = 0});
  all.push_back({.distillation = 1, .temperature = 3, .share = 0.4, .smoothness = 1, .top_k = 7});
  all.push_back({.distillation = 1, .divergence = Divergence::kJensenShannon, .share = 0.3});
  all.push_back({.smoothness = 1, .smoothness_temperature = 2, .top_k = 500});
  return all;
}

template <class S, class O>
void expect_like_cpu(int64_t V, double tolerance, Dtype dtype, Dtype grad_dtype) {
  for (LogitLosses losses : mixes()) {
    losses.num_tokens = V > 100 ? V - 3 : 0;
    SCOPED_TRACE(testing::Message() << V << " columns, kd " << losses.distillation << " share " << losses.share
                                    << ", smoothness " << losses.smoothness << " top " << losses.top_k);
    std::vector<S> student = hostile_rows<S>(V, 2, false), teacher = hostile_rows<S>(V, 3, false);
    for (int64_t i = 0; i < V; ++i)  // where only one of them is -inf, the reverse KL is infinite
      student[3 * V + i] = teacher[3 * V + i] == -INFINITY ? teacher[3 * V + i] : student[4 * V + i];
    std::vector<int64_t> targets = {0, V - 1, 1, 1, V / 2, -100};
    std::vector<S> weights = {S(0.5), S(1), S(0.25), S(1), S(2), S(0)};
    std::vector<double> wide_s(student.begin(), student.end()), wide_z(teacher.begin(), teacher.end()),
        wide_w(weights.begin(), weights.end()), want_grad(kRows * V), want(kNumLogitLosses * kRows);
    logit_losses_cpu<double>(losses, {kRows, V}, 0, kRows, wide_s.data(), wide_z.data(), targets.data(), wide_w.data(),
                             want_grad.data(), want.data());
    std::vector<O> grad(kRows * V);
    std::vector<S> got(kNumLogitLosses * kRows);
    logit_losses_cuda(losses, {kRows, V}, dtype, student.data(), teacher.data(), targets.data(), weights.data(),
                      grad_dtype, grad.data(), got.data(), nullptr);
    for (size_t i = 0; i < want.size(); ++i)
      EXPECT_NEAR(static_cast<double>(got[i]), want[i], tolerance * std::max(1.0, std::abs(want[i]))) << i;
    const double rounding = sizeof(O) == 2 ? 1.0 / 256 : 0;
    for (int64_t i = 0; i < kRows * V; ++i)
      ASSERT_NEAR(load_as<double>(grad[i]), want_grad[i], tolerance + rounding * std::abs(want_grad[i]))
          << i / V << ", " << i % V;
  }
}

TEST(LogitLossesEmulation, IsTheCpuKernel) {
  for (const int64_t V : {5, 64, 1000, 4100}) {
    expect_like_cpu<float, float>(V, 1e-5, Dtype::kFloat, Dtype::kFloat);
    expect_like_cpu<float, __nv_bfloat16>(V, 1e-5, Dtype::kFloat, Dtype::kBFloat16);
    expect_like_cpu<double, double>(V, 1e-11, Dtype::kDouble, Dtype::kDouble);
  }
}

TEST(LogitLossesEmulation, StoredTeacherIsThatOfTheCpu) {
  for (const int64_t V : {61, 4100}) {
    const std::vector<float> student = hostile_rows<float>(V, 5, false), teacher = hostile_rows<float>(V, 6, false);
    constexpr int64_t k = 40;
    std::vector<float> logits(kRows * k), log_rest(kRows), log_mass(kRows);
    std::vector<int64_t> found(kRows * k);
    top_k_cpu<float>({kRows, V}, k, 0, kRows, teacher.data(), logits.data(), found.data());
    std::vector<int32_t> ids(found.begin(), found.end());
    logits[3 * k + 30] = -INFINITY;  // one candidate fewer
    for (int64_t n = 0; n < kRows; ++n)
      log_mass[n] = std::log1p(-std::exp(log_rest[n] = -0.1f - static_cast<float>(n)));
    const std::vector<double> wide_s(student.begin(), student.end()), wide_z(logits.begin(), logits.end()),
        wide_rest(log_rest.begin(), log_rest.end()), wide_mass(log_mass.begin(), log_mass.end());
    const std::vector<int64_t> targets = {0, V - 1, 1, 1, V / 2, -100};
    const std::vector<float> weights = {0.5f, 1, 0.25f, 1, 2, 0};
    const std::vector<double> wide_w(weights.begin(), weights.end());
    for (const LogitLosses& losses :
         {LogitLosses{.cross_entropy = 0.3, .distillation = 1, .smoothness = 0.5, .smoothness_temperature = 2},
          LogitLosses{.distillation = 1}, LogitLosses{.smoothness = 1, .smoothness_temperature = 3}}) {
      std::vector<double> want_grad(kRows * V), want(kNumLogitLosses * kRows);
      stored_losses_cpu<double>(losses, {kRows, V}, 0, kRows, wide_s.data(),
                                {k, ids.data(), wide_z.data(), wide_rest.data(), wide_mass.data()}, targets.data(),
                                wide_w.data(), want_grad.data(), want.data());
      std::vector<float> grad(kRows * V), got(kNumLogitLosses * kRows);
      stored_losses_cuda(losses, {kRows, V}, Dtype::kFloat, student.data(),
                         {k, ids.data(), logits.data(), log_rest.data(), log_mass.data()}, targets.data(),
                         weights.data(), Dtype::kFloat, grad.data(), got.data(), nullptr);
      for (size_t i = 0; i < want.size(); ++i)
        EXPECT_NEAR(got[i], want[i], 1e-5 * std::max(1.0, std::abs(want[i]))) << V << " " << i;
      for (int64_t i = 0; i < kRows * V; ++i) ASSERT_NEAR(grad[i], want_grad[i], 1e-5) << i / V << ", " << i % V;
    }
  }
}

TEST(LogitLossesEmulation, OfTheTeacherItselfIsExactlyZero) {
  constexpr int64_t V = 3000;
  const std::vector<float> z = hostile_rows<float>(V, 4, false), weights(kRows, 1);
  const std::vector<int64_t> targets(kRows);
  std::vector<float> grad(kRows * V), values(kNumLogitLosses * kRows);
  LogitLosses losses{.distillation = 1, .temperature = 2, .share = 0.5, .smoothness = 1, .top_k = 40};
  logit_losses_cuda(losses, {kRows, V}, Dtype::kFloat, z.data(), z.data(), targets.data(), weights.data(),
                    Dtype::kFloat, grad.data(), values.data(), nullptr);
  for (float value : values) EXPECT_EQ(value, 0);
  for (float slope : grad) ASSERT_EQ(slope, 0);
}

}  // namespace
}  // namespace satin::kernels
