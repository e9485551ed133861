// The model of time against formulas by hand, a simulated ring, and single-GPU steps that were measured.
#include "train/scaling_model.h"

#include <cmath>

#include "core/error.h"
#include "train/cluster_plan.h"
#include "train/shapes.h"

namespace satin::train {
namespace {

/// Round numbers, no latency, nothing hidden.
Cluster plain() {
  Cluster cluster;
  cluster.host_bus_bytes_per_s = 100;
  cluster.network_bytes_per_s = 10;
  cluster.launch_s = cluster.host_hop_s = cluster.network_hop_s = 0;
  cluster.peak_flops_per_s = 1000;
  cluster.utilisation = 0.5;
  cluster.overlap = 0;
  cluster.memory_bytes_per_s = 1e30;
  return cluster;
}

/// 8 blocks of 1,000 weights in 2 bytes; nothing else.
Workload blocks_alone() {
  Workload w;
  w.held_elements = 8000;
  w.num_blocks = 8;
  w.tokens_in_sequence = 1;
  return w;
}

config::Train batch(int64_t micro, int64_t accumulation) {
  config::Train train;
  train.micro_batch_size = micro;
  train.gradient_accumulation_steps = accumulation;
  return train;
}

/// Every rank's sent bytes when parts travel around a ring until all have all.
double simulated_ring_bytes(int64_t size, double bytes) {
  std::vector<std::vector<bool>> has(size, std::vector<bool>(size));
  for (int64_t rank = 0; rank < size; ++rank) has[rank][rank] = true;
  double sent = 0;
  const auto complete = [&] {
    for (const auto& parts : has)
      for (const bool part : parts)
        if (!part) return false;
    return true;
  };
  for (int64_t round = 0; !complete(); ++round) {
    auto next = has;
    for (int64_t rank = 0; rank < size; ++rank) next[(rank + 1) % size][((rank - round) % size + size) % size] = true;
    has = next;
    sent += bytes / static_cast<double>(size);  // of rank 0, as of every other
  }
  return sent;
}

TEST(ScalingModel, AGatherIsARing) {
  for (const int64_t size : {1, 2, 3, 8}) {
    const Group group{size, 1};
    EXPECT_NEAR(all_gather_s(plain(), group, 720), simulated_ring_bytes(size, 720) / 100, 1e-12) << size;
    EXPECT_EQ(reduce_scatter_s(plain(), group, 720), all_gather_s(plain(), group, 720));
  }
  EXPECT_NEAR(all_reduce_s(plain(), {8, 1}, 720), 2 * 720 * 7 / 8. / 100, 1e-12);
}

TEST(ScalingModel, HopsAreCountedInsideAndAcrossHosts) {
  Cluster cluster = plain();
  cluster.launch_s = 1000;
  cluster.host_hop_s = 1;
  cluster.network_hop_s = 50;
  const Group one_host{8, 1}, four_hosts{32, 4};
  EXPECT_NEAR(all_gather_s(cluster, one_host, 1e-9), 1000 + 7, 1e-6);
  EXPECT_NEAR(all_gather_s(cluster, four_hosts, 1e-9), 1000 + 28 + 3 * 50, 1e-6);  // 31 hops, 3 of them between hosts
  EXPECT_NEAR(all_reduce_s(cluster, four_hosts, 1e-9), 1000 + 2 * (7 + 2 * 50), 1e-6);  // the tree: log2(4) = 2
  EXPECT_EQ(all_reduce_s(cluster, {1, 1}, 100), 0);
  EXPECT_EQ(all_gather_s(cluster, four_hosts, 0), 0);
}

TEST(ScalingModel, RingsShareAHostsAdapters) {
  EXPECT_EQ(bus_bytes_per_s(plain(), {8, 1}), 100);
  EXPECT_EQ(bus_bytes_per_s(plain(), {16, 2}), 80);   // 8 adapters of 10
  EXPECT_EQ(bus_bytes_per_s(plain(), {32, 2}), 100);  // 16 of them, but NVLink carries all rings
  EXPECT_EQ(bus_bytes_per_s(plain(), {4, 4}), 10);    // one process a host
  EXPECT_THROW(bus_bytes_per_s(plain(), {2, 4}), InternalError);
  EXPECT_EQ(bus_bytes_per_s(Cluster{}, {16, 2}), 360e9);  // 400e9 of adapters
}

/// P = 8,000 weights, c = r = 2 bytes, W = 8, m micro-batches: the table of the header.
TEST(ScalingModel, BytesSentAreTheHeadersFormulas) {
  const double ring = 7 / 8.;
  const auto sent = [&](Strategy strategy, int64_t m, Gathered gathered = Gathered::kWeights) {
    Workload w = blocks_alone();
    w.code_bits = 2.25;
    return predict_step(w, batch(1, 8 * m), {strategy, 8, 8}, plain(), gathered).sent_bytes;
  };
  EXPECT_NEAR(sent(Strategy::kDdp, 1), 2 * 8000 * 2 * ring, 1e-9);
  EXPECT_NEAR(sent(Strategy::kDdp, 4), 2 * 8000 * 4 * ring, 1e-9);  // sums over micro-batches are fp32
  EXPECT_NEAR(sent(Strategy::kZero1, 1), 8000 * (2 + 2) * ring, 1e-9);
  EXPECT_NEAR(sent(Strategy::kZero1, 4), 8000 * (4 + 2) * ring, 1e-9);
  EXPECT_NEAR(sent(Strategy::kZero2, 4), 8000 * (4 * 2 + 2) * ring, 1e-9);
  // One block of eight stays from forward to backward.
  EXPECT_NEAR(sent(Strategy::kFsdp, 4), 4 * (8000 * 2 + (8000 + 7000) * 2) * ring, 1e-9);
  EXPECT_EQ(sent(Strategy::kHybrid, 4), sent(Strategy::kFsdp, 4));  // one host
  EXPECT_NEAR(sent(Strategy::kZero2, 4, Gathered::kCodes), 8000 * (4 * 2 + 2.25 / 8) * ring, 1e-9);
  EXPECT_EQ(sent(Strategy::kDdp, 4, Gathered::kCodes), sent(Strategy::kDdp, 4));  // gathers nothing
}

TEST(ScalingModel, HybridAddsUpAcrossHosts) {
  const PredictedTime time = predict_step(blocks_alone(), batch(1, 32), {Strategy::kHybrid, 32, 8}, plain());
  const double inside = (8000 * 2 + (8000 + 7000) * 2) * 7 / 8., across = 2 * 3 / 4. * 8000 / 8 * 2;
  EXPECT_NEAR(time.sent_bytes, inside + across, 1e-9);
  EXPECT_NEAR(time.reduce_s + time.gather_s, inside / 100 + across / 10, 1e-9);
}

TEST(ScalingModel, WhatBelongsToNoBlockIsReducedAndGathered) {
  Workload w;
  w.dense_elements = 800;
  w.other_elements = 80;
  w.tokens_in_sequence = 1;
  const auto sent = [&](Strategy strategy) {
    return predict_step(w, batch(1, 8), {strategy, 8, 8}, plain()).sent_bytes;
  };
  EXPECT_NEAR(sent(Strategy::kDdp), 2 * (800 + 80) * 4 * 7 / 8., 1e-9);
  EXPECT_NEAR(sent(Strategy::kZero2), (2 * 800 + 2 * 80) * 4 * 7 / 8., 1e-9);
  w.reduce_bytes = 2;
  EXPECT_NEAR(sent(Strategy::kZero2), (800 * (2 + 4) + 2 * 80 * 4) * 7 / 8., 1e-9);
}

TEST(ScalingModel, TransfersHideUnderArithmeticButForTheFirstAndLastBlock) {
  Workload w = blocks_alone();
  w.student_flops_per_token = 1e6;  // 2,000 s a forward
  Cluster cluster = plain();
  cluster.overlap = 1;
  const double block_s = 1000 * 2 * 7 / 8. / 100;
  const auto exposed = [&](Strategy strategy) {
    return predict_step(w, batch(1, 8), {strategy, 8, 8}, cluster).exposed_s;
  };
  EXPECT_NEAR(exposed(Strategy::kDdp), 2 * block_s, 1e-9);
  EXPECT_NEAR(exposed(Strategy::kZero2), 2 * block_s, 1e-9);
  EXPECT_NEAR(exposed(Strategy::kFsdp), 2 * block_s, 1e-9);
  cluster.overlap = 0;
  EXPECT_NEAR(exposed(Strategy::kZero2), 16 * block_s, 1e-9);
  EXPECT_NEAR(exposed(Strategy::kFsdp), 23 * block_s, 1e-9);
  const PredictedTime time = predict_step(w, batch(1, 8), {Strategy::kFsdp, 8, 8}, cluster);
  EXPECT_NEAR(time.student_s, 3 * 2000, 1e-9);
  EXPECT_NEAR(time.reduce_s + time.gather_s, time.exposed_s, 1e-9);
  EXPECT_NEAR(time.tokens_per_second(), 8 / (6000 + 23 * block_s), 1e-12);
}

TEST(ScalingModel, ASplitTeacherIsGatheredForEachOfItsForwards) {
  Workload w = blocks_alone();
  const auto sent = [&](bool split_teacher) {
    return predict_step(w, batch(1, 32), {Strategy::kFsdp, 8, 8, split_teacher}, plain()).sent_bytes;
  };
  const double without = sent(true);
  w.teacher_elements = 6000;
  w.teacher_forwards = 3;
  EXPECT_EQ(sent(false), without);
  EXPECT_NEAR(sent(true) - without, 4 * 3 * 6000 * 2 * 7 / 8., 1e-9);  // 4 micro-batches
}

TEST(ScalingModel, OneProcessSendsNothing) {
  Workload w = blocks_alone();
  w.dense_elements = w.other_elements = 100;
  for (const Strategy strategy : kStrategies) {
    const PredictedTime time = predict_step(w, batch(1, 1), {strategy, 1, 8}, Cluster{});
    EXPECT_EQ(time.sent_bytes, 0) << strategy_name(strategy);
    EXPECT_EQ(time.exposed_s, 0) << strategy_name(strategy);
  }
}

class OfShape : public testing::Test {
 protected:
  test::TempDir dir;
  Workload workload(const test::Shape& shape, bool teacher, config::Config& config) {
    test::write_shape(dir.path(), shape);
    const models::ModelConfig model = models::load_model_config(dir.path());
    return workload_of(config, student_shapes(config, at::kBFloat16), teacher ? &model : nullptr, at::kBFloat16);
  }
};

/// tests/bench/results/README.md: 1.2b shape, 8 x 2,048 tokens, 2 bits, one H200 (4.24 TB/s): cross-entropy 248 to 250
/// ms, distillation 327 to 329, a token of the neighbours' walk 64 to 65 more.
TEST_F(OfShape, MeasuredStepsOfOneGpu) {
  config::Config config = test::qat_config(dir.path(), 8, 1, 2048);
  Cluster h200;
  h200.memory_bytes_per_s = 4.24e12;
  const auto step_s = [&](bool teacher) {
    return predict_step(workload(test::k1b, teacher, config), config.train, {Strategy::kDdp, 1, 8}, h200).total_s();
  };
  EXPECT_NEAR(step_s(false), 0.249, 0.03 * 0.249);
  EXPECT_NEAR(step_s(true), 0.328, 0.03 * 0.328);
  const double without = step_s(true);
  config.loss.neighbourhood.rate = 0.15;
  config.loss.neighbourhood.depth = 2;
  EXPECT_NEAR(step_s(true) - without, 2 * 0.0645, 0.05 * 2 * 0.0645);
}

TEST_F(OfShape, ElementsAddUpToTheModel) {
  config::Config config = test::qat_config(dir.path(), 8, 1, 2048);
  const Workload w = workload(test::k8b, true, config);
  const double layer = 4096. * (2 * 4096 + 2 * 1024 + 3 * 14336), vocabulary = 4096. * 128256;
  EXPECT_EQ(w.held_elements, 32 * layer);
  EXPECT_EQ(w.dense_elements, 2 * vocabulary);
  EXPECT_EQ(w.other_elements, (2 * 32 + 1) * 4096);
  EXPECT_EQ(w.teacher_elements, 32 * layer);
  EXPECT_NEAR(w.code_bits, 2 + (16 + 2) / 64., 1e-12);  // a bf16 scale and a zero point in 2 bits a group
  EXPECT_NEAR(16 / w.code_bits, 7, 0.02);               // so much less is gathered
  EXPECT_NEAR(w.student_flops_per_token, 2 * (32 * layer + vocabulary) + 2. * 32 * 4096 * 2048, 1);
}

TEST_F(OfShape, FasterLinksNeverSlowAStepDownAndCodesNeverSendMore) {
  config::Config config = test::qat_config(dir.path(), 1, 512, 2048);
  const Workload w = workload(test::k8b, true, config);
  for (const Strategy strategy : kStrategies)
    for (const int64_t world : {8, 64, 512}) {
      const Layout layout{strategy, world, 8};
      const PredictedTime now = predict_step(w, config.train, layout, Cluster{});
      Cluster faster;
      faster.host_bus_bytes_per_s *= 2;
      faster.network_bytes_per_s *= 2;
      EXPECT_LE(predict_step(w, config.train, layout, faster).total_s(), now.total_s());
      faster.overlap = 1;
      faster.launch_s = faster.host_hop_s = faster.network_hop_s = 0;
      EXPECT_LE(predict_step(w, config.train, layout, faster).exposed_s, now.exposed_s);
      const PredictedTime codes = predict_step(w, config.train, layout, Cluster{}, Gathered::kCodes);
      EXPECT_LE(codes.sent_bytes, now.sent_bytes);
      EXPECT_LE(codes.exposed_s, now.exposed_s);
      EXPECT_LE(now.exposed_s, now.reduce_s + now.gather_s + 1e-12);
      // A GPU of many is not faster than a GPU alone, but for the update that they share.
      const PredictedTime alone = predict_step(w, config.train, {Strategy::kDdp, 1, 8}, Cluster{});
      EXPECT_LE(now.tokens_per_second() * (1 - alone.update_s / alone.total_s()),
                static_cast<double>(world) * alone.tokens_per_second());
    }
}

TEST_F(OfShape, MoreGpusAreFasterTogether) {
  config::Config config = test::qat_config(dir.path(), 8, 512, 2048);
  const Workload w = workload(test::k1b, true, config);
  for (const Strategy strategy : kStrategies) {
    double before = 0;
    for (const int64_t world : {1, 8, 64, 512}) {
      const double now = predict_step(w, config.train, {strategy, world, 8}, Cluster{}).tokens_per_second();
      EXPECT_GT(now, before) << strategy_name(strategy) << " " << world;
      before = now;
    }
  }
}

}  // namespace
}  // namespace satin::train
