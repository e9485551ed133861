#include "data/step_share.h"

#include <gtest/gtest.h>

#include <vector>

namespace satin::data {
namespace {

TEST(StepShare, DealsOutEverySampleOnce) {
  for (int64_t samples = 1; samples <= 13; ++samples)
    for (int64_t micro : {1, 2, 5})
      for (int64_t size = 1; size <= samples; ++size) {
        std::vector<int> times(static_cast<size_t>(samples));
        const int64_t steps = StepShare{samples, micro, 0, size}.num_micro_batches();
        for (int64_t rank = 0; rank < size; ++rank) {
          const StepShare share{samples, micro, rank, size};
          EXPECT_EQ(share.num_micro_batches(), steps);  // collectives meet
          EXPECT_GE(share.own().count, samples / size);
          EXPECT_LE(share.own().count, samples / size + 1);
          for (int64_t i = 0; i < steps; ++i) {
            const auto [first, count] = share.micro_batch(i);
            EXPECT_LE(count, micro);
            for (int64_t sample = first; sample < first + count; ++sample) ++times[static_cast<size_t>(sample)];
          }
        }
        EXPECT_EQ(times, std::vector<int>(times.size(), 1)) << samples << " samples, " << size << " processes";
      }
}

TEST(StepShare, OneProcessTakesWholeMicroBatches) {
  const StepShare share{12, 4};
  EXPECT_EQ(share.num_micro_batches(), 3);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(share.micro_batch(i).first, 4 * i);
    EXPECT_EQ(share.micro_batch(i).count, 4);
  }
}

}  // namespace
}  // namespace satin::data
