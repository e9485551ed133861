// What each strategy takes of a device: against sums by hand, and how it changes with the number of processes.
#include "train/memory_estimate.h"

#include <map>

#include "core/error.h"
#include "train/cluster_plan.h"
#include "train/shapes.h"

namespace satin::train {
namespace {

class Memory : public testing::Test {
 protected:
  test::TempDir dir;

  std::map<std::string, int64_t> parts(const config::Config& config, at::ScalarType dtype, bool teacher,
                                       const Layout& layout = {}, at::Device device = at::kCPU) {
    const Student shapes = student_shapes(config, dtype, layout.shard());
    const models::ModelConfig model = shapes.decoder->config();
    std::map<std::string, int64_t> found;
    for (const auto& [name, bytes] :
         estimate_memory(config, *shapes.decoder, teacher ? &model : nullptr, dtype, device, layout).parts)
      found[name] = bytes;
    return found;
  }
  static int64_t sum(const std::map<std::string, int64_t>& parts) {
    int64_t total = 0;
    for (const auto& [name, bytes] : parts) total += bytes;
    return total;
  }
  config::Config tiny() {
    test::write_shape(dir.path(), test::kTiny);
    config::Config config = test::qat_config(dir.path(), 4, 1, 128);
    config.loss.neighbourhood.rate = 0.15;
    return config;
  }
};

/// One process shares with nobody, whatever the strategy.
TEST_F(Memory, StrategiesOfOneProcessAreTheSame) {
  const auto ddp = parts(tiny(), at::kBFloat16, true, {Strategy::kDdp, 1, 8});
  for (const Strategy strategy : kStrategies)
    EXPECT_EQ(parts(tiny(), at::kBFloat16, true, {strategy, 1, 8}), ddp) << strategy_name(strategy);
}

/// A long micro-batch: gradients take the place of activations. A short one: they are what exceeds it, at the end those
/// of all masters in fp32 and of the last 16 linears in bf16.
TEST_F(Memory, GradientsTakeThePlaceOfActivations) {
  test::write_shape(dir.path(), test::k8b);
  const auto of = [&](int64_t sequences, int64_t micro_batches) {
    return parts(test::qat_config(dir.path(), sequences, micro_batches, 2048), at::kBFloat16, true, {}, at::kCUDA);
  };
  EXPECT_EQ(of(16, 1).at("gradients"), 0);
  auto one = of(1, 1);
  EXPECT_EQ(one["gradients"] + one["activations"] + one["loss"] + one["workspace"],
            one["weights"] + 2 * int64_t{32} * (4096 * 4096 * 2 + 4096 * 1024 * 2 + 4096 * 14336 * 3) * 16 / (32 * 7));
  EXPECT_GT(of(16, 2).at("gradients"), 0);
  EXPECT_GT(of(16, 3).at("gradients"), of(16, 2).at("gradients"));
}

/// Of each block its input: the fp32 stream and what is to be added to it; one block in full.
TEST_F(Memory, ActivationCheckpointingKeepsInputs) {
  test::write_shape(dir.path(), test::k8b);
  config::Config config = test::qat_config(dir.path(), 4, 1, 2048);
  config.data.attention_across_documents = true;
  const auto activations = [&] { return parts(config, at::kBFloat16, true, {}, at::kCUDA).at("activations"); };
  const int64_t before = activations(), tokens = 4 * 2048, stream = tokens * (4 + 2) * 4096;
  config.train.activation_checkpointing = true;
  EXPECT_EQ(activations(), (before - stream) / 32 + 33 * stream);
}

/// kTiny by hand: a layer's matrices [64, 64] x 2, [32, 64] x 2, [192, 64] x 2, [64, 192]; embedding and head
/// [1000, 64]; a scale and a zero point a group of 64, fp32. Split over 8: 125, 8, 4 and 24 rows each.
TEST_F(Memory, EveryPartOfEveryStrategyByHand) {
  const config::Config config = [&] {
    config::Config c = tiny();
    c.train.micro_batch_size = 1;
    c.train.gradient_accumulation_steps = 16;  // two forwards a process
    return c;
  }();
  const int64_t layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 192 * 64, vocabulary = 1000 * 64, norms = 7 * 64;
  const int64_t scales = 2 * (2 * 64 + 2 * 32 + 2 * 192 + 64 * 3);  // of a layer; down_proj has 192 inputs
  const int64_t blocks = 3 * layer, all = blocks + 3 * scales + 2 * vocabulary + norms;
  const int64_t own = (blocks + 3 * scales + 2 * vocabulary) / 8 + norms;
  const auto of = [&](Strategy strategy) { return parts(config, at::kBFloat16, true, {strategy, 8, 8}); };

  auto ddp = of(Strategy::kDdp);
  EXPECT_EQ(ddp["weights"], 4 * all);
  const int64_t rest = 4 * (2 * vocabulary + norms);
  const auto gradients = [&](std::map<std::string, int64_t>& of, int64_t beside, int64_t at_the_end) {
    EXPECT_EQ(of["gradients"], std::max(beside, at_the_end - of["activations"] - of["loss"] - of["workspace"]));
  };
  gradients(ddp, 2 * blocks + rest, 4 * all + 4 * blocks);
  EXPECT_EQ(ddp["optimizer"], 8 * all);
  EXPECT_EQ(ddp["held weights"], 2 * (blocks + vocabulary));  // the head is cast, the embedding looked up
  const int64_t teacher_state = 128 * 64 * 2;
  EXPECT_EQ(ddp["teacher"], 2 * (blocks + 2 * vocabulary + norms) + teacher_state);

  auto zero1 = of(Strategy::kZero1), zero2 = of(Strategy::kZero2), fsdp = of(Strategy::kFsdp);
  for (auto* sharded : {&zero1, &zero2, &fsdp}) {
    EXPECT_EQ((*sharded)["weights"], 4 * (own + 2 * vocabulary));  // whole copies of embedding and head
    EXPECT_EQ((*sharded)["optimizer"], 8 * own);
    EXPECT_EQ((*sharded)["activations"], ddp["activations"]);
    EXPECT_EQ((*sharded)["loss"], ddp["loss"]);
  }
  const int64_t sums = 4 * (own + 2 * vocabulary);
  gradients(zero1, 2 * blocks + rest, sums + 4 * blocks);  // two micro-batches: fp32 at the end
  gradients(zero2, 2 * blocks / 8 + rest, sums + 4 * blocks / 8 + 2 * 2 * layer);
  EXPECT_EQ(fsdp["gradients"], zero2["gradients"]);
  EXPECT_EQ(zero1["held weights"], 2 * (blocks + blocks / 8 + vocabulary));
  EXPECT_EQ(zero2["held weights"], zero1["held weights"]);
  EXPECT_EQ(fsdp["held weights"], 2 * (2 * layer + blocks / 8 + vocabulary));
  EXPECT_EQ(zero2["teacher"], ddp["teacher"]);
  const int64_t teacher_layer = layer + 2 * 64;
  EXPECT_EQ(fsdp["teacher"], ddp["teacher"]);
  const Layout split_too{Strategy::kFsdp, 8, 8, /*split_teacher=*/true};
  EXPECT_EQ(parts(config, at::kBFloat16, true, split_too)["teacher"],
            2 * ((3 * teacher_layer + 7) / 8 + 2 * teacher_layer + 2 * vocabulary + 64) + teacher_state);
  EXPECT_EQ(of(Strategy::kHybrid), fsdp);  // one host
}

/// The gradient penalty's second set of gradients is of a process's own rows, and its fp32 weights come by block.
TEST_F(Memory, ThePenaltyIsSplitAsTheModelIs) {
  config::Config config = tiny();
  config.train.micro_batch_size = 1;
  config.train.gradient_accumulation_steps = 8;
  config.loss.lgr.weight = 1;
  const auto lgr = [&](Strategy strategy) { return parts(config, at::kBFloat16, true, {strategy, 8, 8}).at("lgr"); };
  const int64_t layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 192 * 64, blocks = 3 * layer, vocabulary = 1000 * 64;
  const int64_t scales = 3 * 2 * (2 * 64 + 2 * 32 + 2 * 192 + 64 * 3), split = blocks + scales + 2 * vocabulary;
  const int64_t by_rows = 4 * (split / 8 + 2 * vocabulary - split);  // and whole copies of embedding and head
  EXPECT_EQ(lgr(Strategy::kZero1) - lgr(Strategy::kDdp), by_rows + (4 - 2) * blocks / 8);
  EXPECT_EQ(lgr(Strategy::kZero1) - lgr(Strategy::kZero2), 4 * (blocks - blocks / 8 - 2 * layer));
  EXPECT_EQ(lgr(Strategy::kZero2) - lgr(Strategy::kFsdp), (4 - 2) * (blocks - 2 * layer));
  const int64_t before = lgr(Strategy::kFsdp);
  config.loss.lgr.layer = 2;
  EXPECT_EQ(lgr(Strategy::kFsdp) - before, 4 * 2 * layer);
}

TEST_F(Memory, HybridSplitsInsideAHost) {
  config::Config config = tiny();
  config.train.micro_batch_size = 16;
  EXPECT_EQ(parts(config, at::kBFloat16, true, {Strategy::kHybrid, 16, 4}).at("optimizer"),
            parts(config, at::kBFloat16, true, {Strategy::kFsdp, 4, 4}).at("optimizer"));
}

/// A quantized head is read in fp32 too: where it is split, its whole is held in fp32.
TEST_F(Memory, AQuantizedHeadIsWholeInFp32) {
  config::Config config = tiny();
  const int64_t vocabulary = 1000 * 64;
  const Layout layout{Strategy::kFsdp, 4, 8};
  auto before = parts(config, at::kBFloat16, true, layout);
  config::QuantizationRule rule;
  rule.match = "lm_head";
  config.quantization->overrides.push_back(rule);
  auto after = parts(config, at::kBFloat16, true, layout);
  EXPECT_EQ(after["held weights"] - before["held weights"], 4 * (vocabulary + vocabulary / 4) - 2 * vocabulary);
  const int64_t scales = 4 * 2 * 1000 / 4;
  EXPECT_EQ(after["weights"] - before["weights"], scales - 4 * vocabulary);  // no whole copy of the master
}

TEST_F(Memory, MoreProcessesNeverTakeMoreAndStrategiesAreInOrder) {
  test::write_shape(dir.path(), test::k8b);
  const config::Config config = test::qat_config(dir.path(), 1, 512, 2048);
  for (const Strategy strategy : kStrategies) {
    int64_t before = std::numeric_limits<int64_t>::max();
    for (const int64_t world : {1, 2, 8, 16, 64, 256}) {  // 512 leave the last no row of 128,256: these are not split
      const int64_t now = sum(parts(config, at::kBFloat16, true, {strategy, world, 8}, at::kCUDA));
      if (world > 2 || strategy == Strategy::kDdp) {  // two processes have a whole copy beside half of it
        EXPECT_LE(now, before) << strategy_name(strategy) << " " << world;
      }
      before = now;
    }
  }
  for (const int64_t world : {8, 64, 256}) {
    const auto total = [&](Strategy strategy) {
      return sum(parts(config, at::kBFloat16, true, {strategy, world, 8}, at::kCUDA));
    };
    EXPECT_LT(total(Strategy::kZero1), total(Strategy::kDdp));
    EXPECT_LT(total(Strategy::kZero2), total(Strategy::kZero1));
    EXPECT_LT(total(Strategy::kFsdp), total(Strategy::kZero2));
    EXPECT_LE(total(Strategy::kFsdp), total(Strategy::kHybrid));
  }
}

TEST_F(Memory, AShareOfAStep) {
  config::Train train;
  train.micro_batch_size = 4;
  train.gradient_accumulation_steps = 6;  // 24 sequences
  const auto share = [&](int64_t world) {
    const BatchShare found = share_of_step(train, world);
    return std::vector{found.sequences, found.forwards, found.in_forward};
  };
  EXPECT_EQ(share(1), (std::vector<int64_t>{24, 6, 4}));
  EXPECT_EQ(share(2), (std::vector<int64_t>{12, 3, 4}));
  EXPECT_EQ(share(4), (std::vector<int64_t>{6, 2, 4}));
  EXPECT_EQ(share(5), (std::vector<int64_t>{5, 2, 4}));  // 5 at most
  EXPECT_EQ(share(24), (std::vector<int64_t>{1, 1, 1}));
  EXPECT_THROW(share(25), UserError);
}

/// ddp, zero2 and fsdp in turn as the device shrinks; fsdp where nothing fits; a named strategy stays.
TEST_F(Memory, AutoTakesTheFirstThatFits) {
  test::write_shape(dir.path(), test::k8b);
  config::Config config = test::qat_config(dir.path(), 1, 8, 2048);
  const models::ModelConfig teacher = models::load_model_config(dir.path());
  Job job;
  job.world_size = 8;
  const auto total = [&](Strategy strategy) {
    return static_cast<double>(sum(parts(config, at::kBFloat16, true, {strategy, 8, 8}, at::kCUDA)));
  };
  const auto taken = [&](double bytes) {
    job.device_memory_bytes = static_cast<int64_t>(bytes);
    return resolve_layout(config, &teacher, at::kBFloat16, at::kCUDA, job).strategy;
  };
  EXPECT_EQ(taken(1.001 * total(Strategy::kDdp) / kUsableMemory), Strategy::kDdp);
  EXPECT_EQ(taken(0.999 * total(Strategy::kDdp) / kUsableMemory), Strategy::kZero2);
  EXPECT_EQ(taken(1.001 * total(Strategy::kZero2) / kUsableMemory), Strategy::kZero2);
  EXPECT_EQ(taken(0.999 * total(Strategy::kZero2) / kUsableMemory), Strategy::kFsdp);
  EXPECT_EQ(taken(1e9), Strategy::kFsdp);
  EXPECT_EQ(taken(0), Strategy::kDdp);  // not known
  config.parallel.strategy = "zero1";
  EXPECT_EQ(taken(1e9), Strategy::kZero1);
}

}  // namespace
}  // namespace satin::train
