// Rows of a cache of keys or values (cached_attention.h) as cached_attention.cu reads and writes them: a place's D
// features by a team of D / 8 lanes, eight each, in 16, 8 or 4 bytes.
//
// Eight in every format, so that sums have the same order in all: integers give the bits that their numbers would,
// held in 16 bits. Wider loads would not help: the kernel waits for instructions, 4.5 for each integer (its byte into
// the mantissa of 2^23, the difference, the product, half a rounding, a number of its own again) beside one of 16 bits.
#pragma once
#include "kernels/act_quant_math.h"
#include "kernels/cuda/packed_device.cuh"

namespace satin::kernels {

enum class Stored { kNumbers, kInt8, kInt4 };
template <Stored kStored>
constexpr int kLaneWords = kStored == Stored::kNumbers ? 4
                           : kStored == Stored::kInt8  ? 2
                                                       : 1;
template <Stored kStored>
constexpr float kTop = kStored == Stored::kInt8 ? 127 : 7;

template <bool kHalf>
__device__ __forceinline__ uint16_t narrow(float x) {
  return kHalf ? __half_as_ushort(__float2half_rn(x)) : __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
template <bool kHalf>
__device__ __forceinline__ float number(uint16_t bits) {
  return pair_of(bits, kHalf).x;
}
/// Two in one instruction, a lowest.
template <bool kHalf>
__device__ __forceinline__ uint32_t narrow(float a, float b) {
  if constexpr (kHalf) {
    const __half2 two = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&two);
  } else {
    const __nv_bfloat162 two = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&two);
  }
}

/// Of one head of a sequence: `words` [places, D], `scales` [places] of integers.
struct HeadRows {
  uint32_t* words;
  float* scales;
};

/// What a lane has of a place; as it begins, zeros.
template <Stored kStored>
struct Eight {
  uint32_t words[kLaneWords<kStored>] = {};
  float scale = 0;
};

template <int kFeatures, Stored kStored>
__device__ __forceinline__ Eight<kStored> eight_of(const HeadRows& rows, int64_t place, int in_team) {
  const uint32_t* const from = rows.words + (place * (kFeatures / 8) + in_team) * kLaneWords<kStored>;
  if constexpr (kStored == Stored::kNumbers) {
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    return {{raw.x, raw.y, raw.z, raw.w}, 0};
  } else if constexpr (kStored == Stored::kInt8) {
    const uint2 raw = *reinterpret_cast<const uint2*>(from);
    return {{raw.x, raw.y}, rows.scales[place]};
  } else {
    return {{*from}, rows.scales[place]};
  }
}

template <bool kHalf, Stored kStored>
__device__ __forceinline__ void numbers_of(const Eight<kStored>& eight, float (&x)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {  // features 2 i and 2 i + 1
    uint32_t pair;
    if constexpr (kStored == Stored::kNumbers) {
      pair = eight.words[i];
    } else {
      // Bytes of level + kZero. Of int4 a word has even features in its low halves, odd ones in its high.
      constexpr bool kBytes = kStored == Stored::kInt8;
      constexpr uint32_t kZero = kBytes ? 128 : 8, kZeros = kZero * 0x01010101u;
      const uint32_t low = kBytes ? eight.words[i / 2] ^ kZeros : (eight.words[0] & 0x0f0f0f0fu) ^ kZeros;
      const uint32_t high = kBytes ? low : (eight.words[0] >> 4 & 0x0f0f0f0fu) ^ kZeros;
      const auto number_of_byte = [&](uint32_t word, int byte) {
        const uint32_t shifted = __byte_perm(word, 0x4b000000u, 0x7440u | static_cast<uint32_t>(byte));  // of 2^23
        return eight.scale * (__uint_as_float(shifted) - (8388608.f + static_cast<float>(kZero)));
      };
      pair =
          narrow<kHalf>(number_of_byte(low, kBytes ? i % 2 * 2 : i), number_of_byte(high, kBytes ? i % 2 * 2 + 1 : i));
    }
    const float2 two = pair_of(pair, kHalf);
    x[2 * i] = two.x, x[2 * i + 1] = two.y;
  }
}

/// Rounds D features, numbers of the dtype in shared memory, to what the cache holds of them, and puts them at `place`
/// of it if it `writes`; a warp together.
template <int kFeatures, bool kHalf, Stored kStored>
__device__ __forceinline__ void round_and_store(int lane, float* features, const HeadRows& rows, int64_t place,
                                                bool writes) {
  constexpr int kPairs = kFeatures / 2;
  __syncwarp();
  if constexpr (kStored == Stored::kNumbers) {
    if (!writes) return;
    for (int i = lane; i < kPairs; i += kLanes)
      rows.words[place * kPairs + i] = narrow<kHalf>(features[2 * i], features[2 * i + 1]);
  } else {
    uint32_t largest = 0;
    for (int i = lane; i < kFeatures; i += kLanes) largest = larger(largest, magnitude(features[i]));
    const float scale = dynamic_scale(__reduce_max_sync(~0u, largest), kTop<kStored>);
    const ActivationLevels<false, float> levels{kTop<kStored>};
    for (int i = lane; i < kPairs; i += kLanes) {
      const float low = levels.level(features[2 * i] / scale), high = levels.level(features[2 * i + 1] / scale);
      const float2 two = pair_of(narrow<kHalf>(scale * low, scale * high), kHalf);
      features[2 * i] = two.x, features[2 * i + 1] = two.y;
      if (!writes) continue;
      const uint32_t low_code = levels.code(low), high_code = levels.code(high);
      if constexpr (kStored == Stored::kInt8) {
        reinterpret_cast<uint16_t*>(rows.words)[place * kPairs + i] = static_cast<uint16_t>(low_code | high_code << 8);
      } else {
        reinterpret_cast<uint8_t*>(rows.words)[place * kPairs + i] =
            static_cast<uint8_t>((low_code & 15) | high_code << 4);
      }
    }
    if (writes && lane == 0) rows.scales[place] = scale;
  }
}

}  // namespace satin::kernels
