// Rows of a cache of keys or values (cached_attention.h) as cached_attention.cu reads and writes them: D features of a
// place, numbers of 16 bits, int8, or int4.
//
// Integers become the numbers that they stand for, of 16 bits, before anything is computed of them, so that y has the
// bits that it has over a cache of numbers. That takes 3.5 instructions a number: a byte into the mantissa of 2^23, the
// difference, the product, half a rounding.
#pragma once
#include "kernels/act_quant_math.h"
#include "kernels/cuda/packed_device.cuh"

namespace satin::kernels {

enum class Stored { kNumbers, kInt8, kInt4 };
template <Stored kStored>
constexpr int kBitsOf = kStored == Stored::kNumbers ? 16
                        : kStored == Stored::kInt8  ? 8
                                                    : 4;
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

/// kBytes of a row where they are here: else `to` stays.
template <int kBytes>
__device__ __forceinline__ void load_row_if(bool is_here, uint32_t* to, const char* from) {
  const auto* const words = reinterpret_cast<const uint32_t*>(from);
  if constexpr (kBytes == 16)
    load_once_if(is_here, to[0], to[1], to[2], to[3], words);
  else if constexpr (kBytes == 8)
    load_once_if(is_here, to[0], to[1], words);
  else if constexpr (kBytes == 4)
    load_if(is_here, *to, words);
  else
    load_if(is_here, *to, reinterpret_cast<const uint16_t*>(from));
}

/// kCount features, integers next to each other in `words`, as pairs of the dtype's numbers.
template <int kCount, bool kHalf, Stored kStored>
__device__ __forceinline__ void numbers_of(const uint32_t* words, float scale, uint32_t* pairs) {
  static_assert(kStored != Stored::kNumbers);
  // Bytes of level + kZero. Of int4 a word has even features in its low halves, odd ones in its high.
  constexpr bool kBytes = kStored == Stored::kInt8;
  constexpr uint32_t kZero = kBytes ? 128 : 8, kZeros = kZero * 0x01010101u;
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {  // features 2 i and 2 i + 1
    const uint32_t word = words[kBytes ? i / 2 : i / 4];
    const uint32_t low = kBytes ? word ^ kZeros : (word & 0x0f0f0f0fu) ^ kZeros;
    const uint32_t high = kBytes ? low : (word >> 4 & 0x0f0f0f0fu) ^ kZeros;
    const auto number_of_byte = [&](uint32_t from, int byte) {
      const uint32_t shifted = __byte_perm(from, 0x4b000000u, 0x7440u | static_cast<uint32_t>(byte));  // of 2^23
      return scale * (__uint_as_float(shifted) - (8388608.f + static_cast<float>(kZero)));
    };
    pairs[i] = narrow<kHalf>(number_of_byte(low, kBytes ? i % 2 * 2 : i % 4),
                             number_of_byte(high, kBytes ? i % 2 * 2 + 1 : i % 4));
  }
}

/// Rounds D features, numbers of the dtype in shared memory, to what the cache holds of them, and puts them at `place`
/// of it if it `writes`; a warp together.
template <int kFeatures, bool kHalf, Stored kStored>
__device__ __forceinline__ void round_and_store(int lane, uint16_t* features, const HeadRows& rows, int64_t place,
                                                bool writes) {
  constexpr int kPairs = kFeatures / 2;
  auto* const pairs = reinterpret_cast<uint32_t*>(features);
  __syncwarp();
  if constexpr (kStored == Stored::kNumbers) {
    if (!writes) return;
    for (int i = lane; i < kPairs; i += kLanes) rows.words[place * kPairs + i] = pairs[i];
  } else {
    uint32_t largest = 0;
    for (int i = lane; i < kFeatures; i += kLanes) largest = larger(largest, magnitude(number<kHalf>(features[i])));
    const float size = float_of(__reduce_max_sync(~0u, largest));
    // dynamic_scale and x / scale, whose scales are 2^-24 ... 2^126 or NaN: the division as it stands keeps registers
    // for numbers beyond.
    const float scale = divide_in_range(static_scale(size), kTop<kStored>) + (size - size);
    const ActivationLevels<false, float> levels{kTop<kStored>};
    for (int i = lane; i < kPairs; i += kLanes) {
      const float2 two = pair_of(pairs[i], kHalf);
      const float low = levels.level(divide_in_range(two.x, scale)), high = levels.level(divide_in_range(two.y, scale));
      pairs[i] = narrow<kHalf>(scale * low, scale * high);
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
