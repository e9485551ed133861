// Codes of packed weights as 16-bit numbers, two at a time: one AND and OR, no conversion.
//
// A code that is put into the mantissa of 2^m (m: mantissa bits) at bit p is the number 2^m + 2^p code. With x 2^-p as
// the other operand, a product's sum is sum (2^(m-p) x) + sum (code x), of which the first depends on x alone: it is
// computed once for all rows, and taken off where sums begin. All numbers are exact in the 16-bit type; sums are fp32.
// Source: the numbers, Kim et al. 2022 (arXiv 2211.10017); their sum apart is ours.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace satin::kernels {

template <class T>
struct Pair;
template <>
struct Pair<__half> {
  static constexpr uint32_t kMagic = 0x64006400;  ///< 1024
  static constexpr float kMagicNumber = 1024;
  using Two = __half2;
  static __device__ __forceinline__ Two both(float x) { return __float2half2_rn(x); }
};
template <>
struct Pair<__nv_bfloat16> {
  static constexpr uint32_t kMagic = 0x43004300;  ///< 128
  static constexpr float kMagicNumber = 128;
  using Two = __nv_bfloat162;
  static __device__ __forceinline__ Two both(float x) { return __float2bfloat162_rn(x); }
};

template <class To, class From>
__device__ __forceinline__ To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  return *reinterpret_cast<const To*>(&from);
}

/// (a & mask) | b in one instruction.
template <uint32_t kMask, uint32_t kB>
__device__ __forceinline__ uint32_t masked_or(uint32_t a) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "n"(kMask), "n"(kB));
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

/// The pairs of a lane's 2 kBits words of a brick.
template <int kBits, class T>
struct Codes {
  static_assert(kBits <= 4, "8 bits do not fit a bfloat16's mantissa");
  static constexpr int kWords = 2 * kBits;
  static constexpr int kStride = kBits == 3 ? 2 : kBits;  ///< bits between pairs of a word
  static constexpr int kPairs = 16 / kStride;             ///< of a word
  /// Without a shift; of 7 bits in either type, so that x 2^-p stays in half's range.
  static constexpr int kInReach = (7 - kBits) / kStride + 1;

  /// Where pair kPair of a row stands in the number that pair() makes.
  template <int kPair>
  static constexpr int kPosition = kStride * (kPair % kPairs % kInReach);

  /// Pair kPair of row g (kRow 0) or g + 8 (1): magic + 2^position code.
  template <int kRow, int kPair>
  static __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kWords]) {
    constexpr int kIn = kPair % kPairs, kHere = kPosition<kPair>, kShift = kStride * kIn - kHere;
    constexpr uint32_t kMask = ((1u << kStride) - 1) * 0x00010001u << kHere;
    const uint32_t low =
        masked_or<kMask, Pair<T>::kMagic>(shifted_right<kShift>(words[kStride * kRow + kPair / kPairs]));
    if constexpr (kBits != 3) {
      return low;
    } else {
      constexpr int kHighShift = 2 * kIn + kPair / kPairs - (kHere + 2);
      return masked_or<(0x00010001u << (kHere + 2))>(shifted_right<kHighShift>(words[4 + kRow]), low);
    }
  }
};

}  // namespace satin::kernels
