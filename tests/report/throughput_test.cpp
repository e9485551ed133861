#include "report/throughput.h"

#include <gtest/gtest.h>

namespace satin::report {
namespace {

TEST(Throughput, FlopsOfAKnownShape) {
  // Hidden 512, 8 layers, 8/4 heads of 64, ffn 1536, vocabulary 8192, by hand: a layer has 2 * 512 * 512 (q, o) +
  // 2 * 512 * 256 (k, v) + 3 * 512 * 1536 = 3145728 weights; the head 8192 * 512.
  const ModelSize model{8 * 3145728 + 4194304, 8, 512};
  EXPECT_DOUBLE_EQ(training_flops_per_token(model, 1024), 6.0 * 29360128 + 25165824);
  EXPECT_DOUBLE_EQ(forward_flops_per_token(model, 1024), 2.0 * 29360128 + 8388608);
}

TEST(Throughput, PeakOnlyOfKnownDevices) {
  EXPECT_EQ(peak_flops_per_second("NVIDIA H100 80GB HBM3"), 989e12);
  EXPECT_EQ(peak_flops_per_second("NVIDIA H200"), 989e12);
  EXPECT_EQ(peak_flops_per_second("NVIDIA H100 PCIe"), 756e12);
  EXPECT_FALSE(peak_flops_per_second("Some CPU"));
}

TEST(Throughput, RateOfTheLastMarks) {
  RateMeter meter(2);
  EXPECT_EQ(meter.tokens_per_second(), 0);
  meter.mark(10, 0);
  EXPECT_EQ(meter.tokens_per_second(), 0);
  meter.mark(20, 1000);  // the slow first step
  EXPECT_DOUBLE_EQ(meter.tokens_per_second(), 100);
  meter.mark(21, 1000);
  meter.mark(22, 1000);
  EXPECT_DOUBLE_EQ(meter.tokens_per_second(), 1000);
}

}  // namespace
}  // namespace satin::report
