// What satin quantize takes of a device: against sums by hand, and that an 8b model fits in 80 GB.
#include "train/quantize_memory.h"

#include <map>

#include "train/cluster_plan.h"
#include "train/shapes.h"

namespace satin::train {
namespace {

class QuantizeMemory : public testing::Test {
 protected:
  test::TempDir dir;

  /// 128 sequences of 2048 tokens, in bfloat16.
  std::map<std::string, int64_t> parts(const test::Shape& shape, const config::Ptq& ptq,
                                       const std::string& dense = {}) {
    test::write_shape(dir.path(), shape);
    config::Config config = test::qat_config(dir.path(), 4, 1, 2048);
    if (!dense.empty()) config.quantization->overrides.push_back({.match = dense, .method = "none"});
    config.quantization->calibration_sequences = 128;
    config.ptq = ptq;
    std::map<std::string, int64_t> found;
    const Student student = student_shapes(config, at::kBFloat16);
    for (const auto& [name, bytes] : estimate_quantize_memory(config, student, at::kBFloat16, at::kCUDA).parts)
      found[name] = bytes;
    found["total"] = 0;
    for (const auto& [name, bytes] : found)
      if (name != "total") found["total"] += bytes;
    return found;
  }
};

TEST_F(QuantizeMemory, OfGptqIsASumByHand) {
  auto found = parts(test::k1b, {.method = "gptq"});
  const int64_t block = 2048 * (2048 * 2 + 512 * 2 + 8192 * 3);
  EXPECT_NEAR(found["weights"], 4.0 * (16 * block + 2048 * 128256), 0.07 * found["weights"]);  // and scales
  EXPECT_EQ(found["streams"], int64_t{128 * 2048} * 2048 * 4);
  EXPECT_EQ(found["moments"], int64_t{8192} * 8192 * 4);               // of down_proj, whose
  EXPECT_EQ(found["work"], 5 * int64_t{8192} * 8192 * 8 + 4 * block);  // fp64 factors are the most
}

TEST_F(QuantizeMemory, StreamsMayLieOnTheHost) {
  EXPECT_EQ(parts(test::k1b, {.method = "gptq", .keep_on_host = true})["streams"], 0);
  // While a batch goes to the next block, its result is beside it; where blocks are trained, full precision's too.
  const test::Shape narrow{2048, 2, 32, 8, 2048, 1000, true};
  EXPECT_EQ(parts(narrow, {.method = "awq"})["streams"], 2 * int64_t{128 * 2048} * 2048 * 4);
  EXPECT_EQ(parts(narrow, {.method = "block_ap"})["streams"], 3 * int64_t{128 * 2048} * 2048 * 4);
}

TEST_F(QuantizeMemory, RoundingToNearestReadsNoText) {
  EXPECT_EQ(parts(test::k1b, {})["streams"], 0);
  EXPECT_EQ(parts(test::k1b, {})["moments"], 0);
  EXPECT_GT(
      parts(test::k1b, {.gradient_cosines = true})["streams"] + parts(test::k1b, {.gradient_cosines = true})["moments"],
      0);
}

TEST_F(QuantizeMemory, TheFirstBlockMayBeDense) {
  for (const config::Ptq& ptq :
       {config::Ptq{.method = "gptq"}, config::Ptq{.method = "lwc", .objective = "layer", .gradient_ratio = 1}}) {
    auto all = parts(test::k8b, ptq), rest = parts(test::k8b, ptq, /*dense=*/"model.layers.0.*");
    EXPECT_EQ(rest["moments"], all["moments"]) << ptq.method;
    EXPECT_EQ(rest["work"], all["work"]) << ptq.method;
  }
}

TEST_F(QuantizeMemory, MomentsOfGradientsAreHeldAsFarAsTheyMay) {
  const int64_t small = 4 * (2048 * 2048 * 3 + 512 * 512 * 2), wide = 4 * 8192 * int64_t{8192} * 2;
  EXPECT_EQ(parts(test::k1b, {.method = "lwc", .objective = "layer", .gradient_ratio = 1})["moments"],
            16 * (small + wide));
  const int64_t block = 4 * (4096 * int64_t{4096} * 3 + 1024 * 1024 * 2 + 14336 * int64_t{14336} * 2);
  EXPECT_EQ(parts(test::k8b, {.method = "lwc", .objective = "layer", .gradient_ratio = 1})["moments"],
            (int64_t{16} << 30) / block * block);
}

TEST_F(QuantizeMemory, Of8bIsBelow80GbWithStreamsOnTheHost) {
  for (const config::Ptq& ptq :
       {config::Ptq{.method = "gptq"}, config::Ptq{.method = "awq"},
        config::Ptq{.method = "lwc", .objective = "layer", .gradient_ratio = 1}, config::Ptq{.method = "block_ap"},
        config::Ptq{.method = "lwc", .objective = "block", .gradient_ratio = 1}}) {
    config::Ptq with = ptq;
    with.keep_on_host = true;
    auto found = parts(test::k8b, with);
    EXPECT_LT(static_cast<double>(found["total"]), 80e9 * kUsableMemory) << ptq.method;
    EXPECT_GT(static_cast<double>(found["total"]), 32e9) << ptq.method;
  }
}

}  // namespace
}  // namespace satin::train
