#include "report/progress.h"

#include <gtest/gtest.h>

#include <cmath>

namespace satin::report {
namespace {

TEST(Progress, WholeLine) {
  EXPECT_EQ(progress_line({.step = 120,
                           .total_steps = 1000,
                           .loss = 2.34567,
                           .tokens_per_second = 148200,
                           .mfu = 0.4712,
                           .memory_bytes = int64_t{13} << 30,
                           .remaining_s = 3725}),
            "step 120/1000 (12%)  loss 2.3457  148k tokens/s  MFU 47.1%  13.0 GiB  ETA 1h 02m");
}

TEST(Progress, LeavesOutWhatIsNotKnown) {
  EXPECT_EQ(progress_line({.step = 1, .total_steps = 3, .loss = 4}), "step 1/3 (33%)  loss 4.0000");
  EXPECT_EQ(progress_line({.loss = std::nan("")}), "step 0/0  loss nan");
}

TEST(Progress, Durations) {
  EXPECT_EQ(duration_text(0), "0s");
  EXPECT_EQ(duration_text(59.6), "1m 00s");
  EXPECT_EQ(duration_text(200), "3m 20s");
  EXPECT_EQ(duration_text(3600), "1h 00m");
  EXPECT_EQ(duration_text(86400 * 2 + 3 * 3600), "2d 03h");
  EXPECT_EQ(duration_text(INFINITY), "?");
}

TEST(Progress, BytesAndCounts) {
  EXPECT_EQ(bytes_text(512), "512 B");
  EXPECT_EQ(bytes_text(1536), "1.5 KiB");
  EXPECT_EQ(bytes_text((int64_t{1} << 30) - 1), "1.0 GiB");
  EXPECT_EQ(count_text(950), "950");
  EXPECT_EQ(count_text(999.6), "1.00k");
  EXPECT_EQ(count_text(12345), "12.3k");
  EXPECT_EQ(count_text(4.56e6), "4.56M");
}

}  // namespace
}  // namespace satin::report
