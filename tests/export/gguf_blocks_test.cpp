// Block types: codes to blocks and back, and what other readers make of them.
#include "export/gguf_blocks.h"

#include <ATen/ATen.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "core/error.h"
#include "export/gguf_grids.h"
#include "export/packed_format.h"
#include "io/safetensors.h"
#include "support/test_support.h"

namespace satin::exporting::gguf {
namespace {

/// Every code, any scale that fp16 holds, zero points from `lowest` to `highest` where there are any.
quant::QuantizedWeight random_weight(const quant::Scheme& scheme, int lowest, int highest, int64_t rows = 3,
                                     int64_t columns = 512) {
  const int64_t groups = scheme.groups(columns);
  const at::ScalarType storage = quant::storage_dtype(scheme.scale_dtype, at::kFloat);
  quant::QuantizedWeight weight{
      scheme,
      at::randint(0, scheme.has_three_levels() ? 3 : 1 << scheme.bits, {rows, columns}, at::kByte),
      (at::rand({rows, groups}) * 6 - 9).exp2().to(storage),
      {}};
  const int fixed = scheme.has_integer_grid() ? 1 << (scheme.bits - 1) : scheme.method == Method::kSeq ? 3 : 1;
  weight.zero_point = scheme.has_zero_point() ? at::randint(lowest, highest + 1, {rows, groups}, at::kInt)
                                              : at::full({rows, groups}, fixed, at::kInt);
  return weight;
}

struct Grid {
  Method method;
  int bits;
  int lowest_zero = 0, highest_zero = 0;
};

std::vector<Grid> all_grids() {
  std::vector<Grid> grids = {{Method::kSeq, 2}, {Method::kTernary, 2}, {Method::kBitNet, 2}, {Method::kBinary, 1}};
  for (int bits = 2; bits <= 8; ++bits) {
    grids.push_back({Method::kLsq, bits});
    grids.push_back({Method::kMinMaxSymmetric, bits});
    grids.push_back({Method::kLsqAsymmetric, bits, 0, (1 << bits) - 1});
    grids.push_back({Method::kLwc, bits, 0, (1 << bits) - 1});
    grids.push_back({Method::kMinMaxAsymmetric, bits, 1, 2});
  }
  return grids;
}

TEST(GgufGrids, SmallestTypeIsTheOneOfTheTable) {
  const struct {
    Method method;
    int bits;
    int64_t group_size;
    std::string type;  // empty: none
  } table[] = {{Method::kBinary, 1, 128, "Q1_0"},
               {Method::kBinary, 1, -1, "Q1_0"},
               {Method::kBinary, 1, 64, "Q2_0"},
               {Method::kBinary, 1, 32, "Q4_0"},
               {Method::kTernary, 2, 256, "TQ1_0"},
               {Method::kBitNet, 2, 0, "TQ1_0"},
               {Method::kTernary, 2, 128, "Q2_0"},
               {Method::kTernary, 2, 32, "Q4_0"},
               {Method::kSeq, 2, 256, "Q2_K"},
               {Method::kSeq, 2, 64, "Q4_0"},
               {Method::kLsq, 2, 64, "Q2_0"},
               {Method::kLsq, 2, 256, "Q2_0"},
               {Method::kLsq, 2, 32, "Q4_0"},
               {Method::kLsqAsymmetric, 2, 256, "Q2_K"},
               {Method::kLsqAsymmetric, 2, 64, "Q4_0"},
               {Method::kLsq, 3, 256, "Q3_K"},
               {Method::kLsq, 3, -1, "Q3_K"},
               {Method::kLsq, 3, 64, "Q4_0"},
               {Method::kLsqAsymmetric, 3, 256, "Q4_K"},
               {Method::kLsqAsymmetric, 3, 64, "Q4_0"},
               {Method::kLsq, 4, 256, "Q4_0"},
               {Method::kLsq, 4, 32, "Q4_0"},
               {Method::kLsqAsymmetric, 4, 256, "Q4_K"},
               {Method::kLsqAsymmetric, 4, 64, "Q5_0"},
               {Method::kLsq, 5, 64, "Q5_0"},
               {Method::kLsqAsymmetric, 5, 256, "Q5_K"},
               {Method::kLsqAsymmetric, 5, 64, "Q8_0"},
               {Method::kLsq, 6, 256, "Q6_K"},
               {Method::kLsq, 6, 64, "Q8_0"},
               {Method::kLsq, 8, 32, "Q8_0"},
               {Method::kLsqAsymmetric, 7, 32, "Q8_0"},
               {Method::kLsqAsymmetric, 8, 32, ""},
               {Method::kLsq, 4, 16, ""}};
  for (const auto& row : table) {
    const BlockType* type = smallest_type(facts_of_all(make_scheme(row.method, row.bits, row.group_size), 3, 512));
    EXPECT_EQ(type ? type->name : "", row.type)
        << quant::to_string(row.method) << " " << row.bits << " " << row.group_size;
  }
  EXPECT_EQ(smallest_type(facts_of_all(make_scheme(Method::kLsq, 3, -1), 3, 192)), &block_type(Type::kQ4_0));
  EXPECT_EQ(smallest_type(facts_of_all(make_scheme(Method::kLsq, 3, -1), 3, 100)), nullptr);
  for (const int64_t columns : {0, 32, 96})  // no whole group
    EXPECT_EQ(smallest_type(facts_of_all(make_scheme(Method::kLsqAsymmetric, 2, 64), 3, columns)), nullptr);
}

TEST(GgufGrids, ValuesDecideWhereTheSchemeDoesNot) {
  at::manual_seed(1);
  // Zero points of 1 and 2 alone; products that fp16 holds.
  EXPECT_STREQ(smallest_type(facts_of(random_weight(make_scheme(Method::kLsqAsymmetric, 2, 64), 1, 2)))->name, "Q2_0");
  EXPECT_STREQ(smallest_type(facts_of(random_weight(make_scheme(Method::kLsqAsymmetric, 2, 64), 0, 2)))->name, "Q4_0");
  auto weight = random_weight(make_scheme(Method::kLsqAsymmetric, 4, 32), 0, 8);
  EXPECT_STREQ(smallest_type(facts_of(weight))->name, "Q4_1");
  weight.zero_point[1][1] = 9;
  weight.scale[1][1] = 0x1.fep-5;  // 8 bits times 4 are 12
  EXPECT_STREQ(smallest_type(facts_of(weight))->name, "Q5_0");
  weight.zero_point[1][1] = 8;
  weight.scale[1][1] = 0;  // no zero point could be read back
  EXPECT_STREQ(smallest_type(facts_of(weight))->name, "Q5_0");
}

TEST(GgufGrids, RefusalsSayWhatWouldBeExact) {
  const WeightFacts facts = facts_of_all(make_scheme(Method::kLsq, 3, 64), 3, 512);
  EXPECT_EQ(refusal(block_type(Type::kQ3_K), facts), "a block of 256 weights has one scale, groups are of 64");
  EXPECT_EQ(alternatives(facts, &block_type(Type::kQ3_K)),
            "exact types: Q4_0 (4.5 bits), Q5_0 (5.5 bits), Q8_0 (8.5 bits); or train with group_size 256 for Q3_K "
            "(3.4375 bits)");
  auto weight = random_weight(make_scheme(Method::kLsq, 3, 64), 0, 0);
  EXPECT_EQ(scales_refusal(weight), "");
  weight.scale[2][3] = 1e6;
  EXPECT_NE(scales_refusal(weight).find("1 of 24 scales are not float16 values"), std::string::npos);
}

/// Every grid in every type that holds it: read back bit for bit, and by other programs.
TEST(GgufGrids, CodesScalesAndZeroPointsComeBack) {
  at::manual_seed(2);
  test::TempDir dir;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  int num_cases = 0;
  for (const Grid& grid : all_grids())
    for (const int64_t group_size : {0, -1, 32, 64, 128, 256})
      for (const auto storage : {quant::Storage::kBFloat16, quant::Storage::kFloat16}) {
        if (group_size == 0 && grid.method == Method::kLwc) continue;
        auto weight = random_weight(make_scheme(grid.method, grid.bits, group_size, storage), grid.lowest_zero,
                                    grid.highest_zero);
        if (group_size == 0) weight.scale.copy_(weight.scale[0].expand_as(weight.scale).clone());
        const WeightFacts facts = facts_of(weight);
        for (const BlockType& type : block_types()) {
          if (!refusal(type, facts).empty()) continue;
          std::vector<std::byte> bytes(3 * (512 / type.block) * type.bytes);
          const size_t two_rows = bytes.size() / 3 * 2;  // in slices
          write_blocks(type, weight, 0, 2, std::span(bytes).first(two_rows));
          write_blocks(type, weight, 2, 3, std::span(bytes).subspan(two_rows));
          const at::Tensor beside = needs_zero_points(type, weight.scheme) ? weight.zero_point : at::Tensor();
          const auto back = read_blocks(type, weight.scheme, 3, 512, bytes, beside, "w");
          EXPECT_TRUE(back.codes.equal(weight.codes)) << type.name << " " << quant::describe(weight.scheme);
          EXPECT_TRUE(back.scale.equal(weight.scale)) << type.name << " " << quant::describe(weight.scheme);
          EXPECT_EQ(back.scale.scalar_type(), weight.scale.scalar_type());
          EXPECT_TRUE(back.zero_point.equal(weight.zero_point)) << type.name << " " << quant::describe(weight.scheme);
          // The format's own rule gives the exact product in fp32.
          const at::Tensor product =
              (weight.scale.to(at::kFloat).unsqueeze(-1) * quant::levels(weight).view({3, weight.scale.size(1), -1}))
                  .view({3, 512});
          at::Tensor values = at::empty({3, 512}, at::kFloat);
          const size_t row_bytes = bytes.size() / 3;
          for (int64_t row = 0; row < 3; ++row)
            dequantize(type, std::span(bytes).subspan(row * row_bytes, row_bytes),
                       {values.mutable_data_ptr<float>() + 512 * row, 512});
          EXPECT_TRUE(values.equal(product)) << type.name << " " << quant::describe(weight.scheme);
          const std::string name = std::string(type.name) + "." + std::to_string(num_cases++);
          tensors.emplace_back(name + ".blocks",
                               at::from_blob(bytes.data(), {3, static_cast<int64_t>(row_bytes)}, at::kByte).clone());
          tensors.emplace_back(name + ".values", product);
        }
      }
  EXPECT_GT(num_cases, 500);
  SATIN_NEEDS_PYTHON("gguf");
  io::write_safetensors(dir / "blocks.safetensors", tensors);
  const auto checked = test::run_python("export/gguf_blocks_oracle.py " + (dir / "blocks.safetensors").string());
  EXPECT_EQ(checked.exit_code, 0) << checked.output;
  std::printf("%s", checked.output.c_str());
}

/// Blocks of other programs: random bits everywhere, scales included.
TEST(GgufBlocks, GeneralBlocksAreReadByTheFormatsRule) {
  test::TempDir dir;
  std::mt19937 random(3);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const BlockType& type : block_types()) {
    const int64_t num_blocks = 200;
    std::vector<uint8_t> bytes(num_blocks * type.bytes);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    std::vector<float> values(num_blocks * type.block);
    dequantize(type, std::as_bytes(std::span(bytes)), values);
    const std::string name = std::string(type.name) + ".0";
    tensors.emplace_back(name + ".blocks",
                         at::from_blob(bytes.data(), {1, static_cast<int64_t>(bytes.size())}, at::kByte).clone());
    tensors.emplace_back(name + ".values",
                         at::from_blob(values.data(), {1, static_cast<int64_t>(values.size())}, at::kFloat).clone());
    if (type.dense()) continue;
    // What is unpacked is packed to the same bytes, scales apart.
    std::vector<std::byte> again(type.bytes);
    uint8_t u[kMaxBlock], back[kMaxBlock];
    for (int64_t b = 0; b < num_blocks; ++b) {
      type.unpack(std::as_bytes(std::span(bytes)).data() + b * type.bytes, u);
      type.pack(u, again.data());
      type.unpack(again.data(), back);
      ASSERT_TRUE(std::equal(u, u + type.block, back)) << type.name;
    }
  }
  SATIN_NEEDS_PYTHON("gguf");
  io::write_safetensors(dir / "blocks.safetensors", tensors);
  const auto checked = test::run_python("export/gguf_blocks_oracle.py " + (dir / "blocks.safetensors").string());
  EXPECT_EQ(checked.exit_code, 0) << checked.output;
  std::printf("%s", checked.output.c_str());
}

TEST(GgufBlocks, ChangedBlocksAreRefused) {
  at::manual_seed(4);
  const auto scheme = make_scheme(Method::kLsqAsymmetric, 3, 256);
  const auto weight = random_weight(scheme, 0, 7);
  const BlockType& type = block_type(Type::kQ4_K);
  std::vector<std::byte> bytes(3 * 2 * type.bytes);
  write_blocks(type, weight, 0, 3, bytes);
  const auto reason = [&](size_t at, int value, const at::Tensor& zero = {}) {
    std::vector<std::byte> changed = bytes;
    changed[at] = std::byte(value);
    try {
      read_blocks(type, scheme, 3, 512, changed, zero, "w");
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(reason(1, 0x55).find("row 0: a block with more than one scale"), std::string::npos);
  EXPECT_NE(reason(4, 63).find("more than one scale"), std::string::npos);
  EXPECT_NE(reason(144 + 20, 0xff).find("a level that the grid does not have"), std::string::npos);
}

TEST(GgufBlocks, Halves) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = half_to_float(static_cast<uint16_t>(bits));
    const c10::Half half(static_cast<uint16_t>(bits), c10::Half::from_bits());
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(half)));
      EXPECT_FALSE(exact_half(value));
      continue;
    }
    ASSERT_EQ(value, static_cast<float>(half)) << bits;
    ASSERT_EQ(exact_half(value), bits);
    ASSERT_FALSE(std::isfinite(value) && exact_half(std::nextafter(value, 1e30f)));
  }
}

}  // namespace
}  // namespace satin::exporting::gguf
