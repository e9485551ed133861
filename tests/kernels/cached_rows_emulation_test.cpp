// Rows of cached_attention.cu's cache on the CPU (kernels/cuda/emulation.h): what a warp stores of a row, the numbers
// that are made of it, and those that stand for it while it is new, are what act_quant.h says, bit for bit.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/cuda/ptx.cuh"

// What cached_rows.cuh takes from CUDA's headers beyond what is emulated.
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
  return {__float2bfloat16_rn(a), __float2bfloat16_rn(b)};
}
inline __half2 __floats2half2_rn(float a, float b) {
  return {__half_as_ushort(__float2half_rn(a)), __half_as_ushort(__float2half_rn(b))};
}

#include "kernels/cuda/cached_rows.cuh"

namespace satin::kernels {
namespace {

constexpr int64_t kPlaces = 3, kPlace = 1;

/// A row of the dtype's numbers is stored at kPlace, and read.
template <int kFeatures, bool kHalf, Stored kStored>
void expect_the_row(const std::vector<float>& row) {
  SCOPED_TRACE(testing::Message() << kFeatures << " features, " << (kHalf ? "half" : "bfloat16") << ", format "
                                  << static_cast<int>(kStored));
  constexpr int kRowWords = kFeatures * kBitsOf<kStored> / 32;
  constexpr uint32_t kUntouched = 0x55555555;
  std::vector<uint32_t> words(kPlaces * kRowWords, kUntouched);
  std::vector<float> scales(kPlaces, 5);
  std::vector<uint32_t> features(kFeatures / 2), found(kFeatures / 2);  // pairs
  for (size_t i = 0; i < features.size(); ++i) features[i] = narrow<kHalf>(row[2 * i], row[2 * i + 1]);
  const HeadRows rows{words.data(), scales.data()};
  emulation::Block(kLanes, [&] {
    const int lane = static_cast<int>(threadIdx.x);
    auto* const numbers = reinterpret_cast<uint16_t*>(features.data());
    round_and_store<kFeatures, kHalf, kStored>(lane, numbers, rows, kPlace, true);
  }).run();
  const uint32_t* const stored = words.data() + kPlace * kRowWords;
  if constexpr (kStored == Stored::kNumbers)
    std::copy(stored, stored + kRowWords, found.begin());
  else
    numbers_of<kFeatures, kHalf, kStored>(stored, scales[kPlace], found.data());

  std::vector<float> expected = row;
  if (kStored != Stored::kNumbers) {
    const auto format = kStored == Stored::kInt8 ? ActivationFormat::kInt8 : ActivationFormat::kInt4;
    act_quant_cpu(format, {1, kFeatures}, 0, 1, row.data(), expected.data());
    for (float& x : expected) x = kHalf ? round_float16(x) : round_bfloat16(x);
    std::vector<uint8_t> codes(kFeatures);
    float scale;
    act_quant_codes_cpu(format, {1, kFeatures}, 0, 1, row.data(), codes.data(), &scale);
    if (scale == scale) {
      EXPECT_EQ(bits_of(scales[kPlace]), bits_of(scale));
    } else {
      EXPECT_TRUE(scales[kPlace] != scales[kPlace]);
    }
    const auto* const bytes = reinterpret_cast<const uint8_t*>(words.data() + kPlace * kRowWords);
    for (size_t i = 0; i < kFeatures; ++i)
      EXPECT_EQ(kStored == Stored::kInt8 ? bytes[i] : bytes[i / 2] >> 4 * (i % 2) & 15,
                kStored == Stored::kInt8 ? codes[i] : codes[i] & 15)
          << i;
  }
  for (size_t i = 0; i < kFeatures; ++i) {
    const auto at = [&](const std::vector<uint32_t>& pairs) {
      return static_cast<uint16_t>(pairs[i / 2] >> 16 * (i % 2));
    };
    if (expected[i] != expected[i]) {
      for (const float x : {number<kHalf>(at(found)), number<kHalf>(at(features))}) EXPECT_TRUE(x != x) << i;
    } else {
      EXPECT_EQ(at(found), narrow<kHalf>(expected[i])) << i;
      EXPECT_EQ(at(features), narrow<kHalf>(expected[i])) << i << ", as the new row";
    }
  }
  for (const int place : {0, 2}) {
    EXPECT_EQ(scales[place], 5);
    for (int i = 0; i < kRowWords; ++i) EXPECT_EQ(words[place * kRowWords + i], kUntouched) << place;
  }
}

template <int kFeatures, bool kHalf>
void expect_rows() {
  std::mt19937 random(kFeatures);
  std::normal_distribution<float> normal;
  const auto rounded = [](float x) { return kHalf ? round_float16(x) : round_bfloat16(x); };
  for (const float size : {1e-4f, .02f, 1.f, 30.f, 0.f, NAN, INFINITY}) {
    SCOPED_TRACE(size);
    std::vector<float> row(kFeatures);
    for (float& x : row) x = rounded(normal(random) * (size - size == 0 ? size : 1));
    if (size == 1)  // every half between levels of int4, whose scale is 1
      for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i % 29) / 2 - 7;
    if (size - size != 0) row[5] = size;
    expect_the_row<kFeatures, kHalf, Stored::kNumbers>(row);
    expect_the_row<kFeatures, kHalf, Stored::kInt8>(row);
    expect_the_row<kFeatures, kHalf, Stored::kInt4>(row);
  }
}

TEST(CachedRowsEmulation, HoldTheBitsOfActQuant) {
  const auto both = []<int kFeatures>(std::integral_constant<int, kFeatures>) {
    expect_rows<kFeatures, false>();
    expect_rows<kFeatures, true>();
  };
  both(std::integral_constant<int, 32>{});
  both(std::integral_constant<int, 64>{});
  both(std::integral_constant<int, 128>{});
  both(std::integral_constant<int, 256>{});
}

}  // namespace
}  // namespace satin::kernels
