#include "train/step_time.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

namespace satin::train {
namespace {

void pass_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

/// A job whose processes a test plays: it has waited so long, and others have these sums.
class Played : public dist::Communicator {
 public:
  int64_t rank() const override { return 1; }
  int64_t size() const override { return 2; }
  dist::Pending all_reduce(const std::vector<at::Tensor>&) override { return {}; }
  dist::Pending all_gather(const at::Tensor&, const at::Tensor&) override { return {}; }
  dist::Pending reduce_scatter(const at::Tensor&, const at::Tensor&) override { return {}; }
  dist::Pending broadcast(const at::Tensor&, int64_t) override { return {}; }
  std::vector<double> sum(const std::vector<double>& values) override {
    EXPECT_EQ(std::vector(values.begin(), values.begin() + 3), std::vector<double>(3, 0.0));
    std::vector<double> all = values;
    all[0] = 10;
    all[1] = 20;
    all[2] = 30;
    return all;
  }
  std::vector<std::string> gather(const std::string& text) override { return {"", text}; }
  void barrier() override {}
  double waited_s() const override { return waited; }
  std::shared_ptr<Communicator> duplicate() override { return nullptr; }
  std::shared_ptr<Communicator> subgroup(const std::vector<int64_t>&) override { return nullptr; }
  double waited = 100;
};

TEST(StepTime, SharesAddUpToTheStep) {
  const auto world = std::make_shared<Played>();
  dist::Sharing sharing;
  sharing.world = sharing.shards = world;  // one group in two roles: counted once
  StepTime time(sharing);
  const auto step = [&](int data_ms, int compute_ms, double communication_s) {
    time.begin();
    pass_ms(data_ms);
    time.data_is_here();
    pass_ms(compute_ms);
    world->waited += communication_s;
    time.end();
  };
  step(0, 50, 0.001);
  time.take();
  EXPECT_TRUE(time.mean().empty());  // the first steps start the program up
  step(20, 40, 0.010);
  world->waited += 5;  // outside a step
  step(0, 20, 0.010);
  const std::vector<StepShares> ranks = time.take();
  ASSERT_EQ(ranks.size(), 2u);
  EXPECT_EQ(ranks[0].compute_ms, 10);
  EXPECT_EQ(ranks[0].communication_ms, 20);
  EXPECT_EQ(ranks[0].data_ms, 30);
  EXPECT_NEAR(ranks[1].communication_ms, 10, 1e-6);
  EXPECT_GE(ranks[1].data_ms, 10);
  EXPECT_LT(ranks[1].data_ms, 25);
  EXPECT_GE(ranks[1].compute_ms, 30 - 10);
  EXPECT_LT(ranks[1].compute_ms, 60);
  EXPECT_EQ(time.mean()[1].data_ms, ranks[1].data_ms);

  const nlohmann::ordered_json json = step_time_json(ranks);
  EXPECT_EQ(json["communication_ms"], (20 + ranks[1].communication_ms) / 2);
  EXPECT_EQ(json["ranks"]["compute_ms"][1], ranks[1].compute_ms);
  EXPECT_FALSE(step_time_json({{1, 2, 3}}).contains("ranks"));
  EXPECT_NE(step_time_text({{1, 2, 3}, {2, 1, 3}}).find("rank 1 computes longest, 2.00 ms"), std::string::npos);
}

}  // namespace
}  // namespace satin::train
