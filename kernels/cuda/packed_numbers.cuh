// Codes of packed weights -> levels as 16-bit numbers, two at a time, without a conversion.
//
// A code that is put into the mantissa of 2^m (m: mantissa bits) at bit p is the number 2^m + 2^p code; a fused
// multiply-add by 2^-p with -(2^(m-p) + zero) makes it code - zero, exactly: both products and the sum have few bits.
// So positions in a word need a shift only when they leave the mantissa. Source: Kim et al. 2022 (arXiv 2211.10017).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace satin::kernels {

template <class T>
struct Pair;
template <>
struct Pair<__half> {
  static constexpr int kMantissa = 10;
  static constexpr uint32_t kMagic = 0x64006400;
  using Two = __half2;
  static __device__ __forceinline__ Two both(float x) { return __float2half2_rn(x); }
};
template <>
struct Pair<__nv_bfloat16> {
  static constexpr int kMantissa = 7;
  static constexpr uint32_t kMagic = 0x43004300;
  using Two = __nv_bfloat162;
  static __device__ __forceinline__ Two both(float x) { return __float2bfloat162_rn(x); }
};

template <class To, class From>
__device__ __forceinline__ To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  return *reinterpret_cast<const To*>(&from);
}

/// (a & mask) | magic in one instruction.
template <uint32_t kMask, uint32_t kMagic>
__device__ __forceinline__ uint32_t masked_or(uint32_t a) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "n"(kMask), "n"(kMagic));
  return result;
}
template <uint32_t kMask>
__device__ __forceinline__ uint32_t masked_or(uint32_t a, uint32_t b) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "n"(kMask), "r"(b));
  return result;
}

template <int kShift>
__device__ __forceinline__ uint32_t shifted_right(uint32_t x) {
  if constexpr (kShift >= 0)
    return x >> kShift;
  else
    return x << -kShift;
}

/// Levels of a lane's 32 pairs of one brick. step is 1 here: a scale takes it up, a zero is over it (half-integers).
template <int kBits, class T>
struct Levels {
  using Number = Pair<T>;
  using Two = typename Number::Two;
  static constexpr int kWords = 2 * kBits;
  static constexpr int kStride = kBits == 3 ? 2 : kBits;  ///< bits between pairs of a word
  static constexpr int kPairs = 16 / kStride;             ///< of a word
  /// From bit 1 on, half-integer zeros are exact too.
  static constexpr int kLeast = kBits <= 2 ? 1 : 0;
  static constexpr bool kInNibbles = kBits > Number::kMantissa;
  static constexpr int kInReach = kInNibbles ? 1 : (Number::kMantissa - kBits - kLeast) / kStride + 1;

  /// What is added after the multiplication, by position, for one row.
  struct Addends {
    Two of[kInReach];
    __device__ __forceinline__ explicit Addends(float zero) {
#pragma unroll
      for (int i = 0; i < kInReach; ++i)
        of[i] = Number::both(kInNibbles ? -zero : -(static_cast<float>(1 << Number::kMantissa) / (1 << position(i)) + zero));
    }
  };
  static constexpr __host__ __device__ int position(int i) { return kLeast + kStride * i; }

  /// Pair kPair of the lane whose words these are.
  template <int kPair>
  static __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kWords], const Addends& addends) {
    constexpr int kIn = kPair % kPairs, kReach = kIn % kInReach;
    const uint32_t word = words[kPair / kPairs];
    if constexpr (kInNibbles) {
      constexpr uint32_t kMask = 0x000f000f;
      const Two low = bits_as<Two>(masked_or<kMask, Number::kMagic>(shifted_right<8 * kIn>(word)));
      const Two high = bits_as<Two>(masked_or<kMask, Number::kMagic>(shifted_right<8 * kIn + 4>(word)));
      const Two upper = __hadd2(__hfma2(high, Number::both(16.f), Number::both(-2048.f)), addends.of[0]);
      return bits_as<uint32_t>(__hadd2(upper, __hadd2(low, Number::both(-128.f))));
    } else {
      constexpr int kPosition = position(kReach), kShift = kStride * (kIn - kReach) - kLeast;
      constexpr uint32_t kMask = ((1u << kStride) - 1) * 0x00010001u << kPosition;
      uint32_t number = masked_or<kMask, Number::kMagic>(shifted_right<kShift>(word));
      if constexpr (kBits == 3) {
        constexpr int kLow = kPair / kPairs, kHighShift = kStride * (kIn - kReach) - 2 + kLow % 2;
        number = masked_or<(0x00010001u << (kPosition + 2))>(shifted_right<kHighShift>(words[4 + kLow / 2]), number);
      }
      return bits_as<uint32_t>(__hfma2(bits_as<Two>(number), Number::both(1.f / (1 << kPosition)), addends.of[kReach]));
    }
  }
};

}  // namespace satin::kernels
