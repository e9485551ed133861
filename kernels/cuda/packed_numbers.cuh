// Packed codes as bfloat16 numbers, without a conversion: a code that is put into the mantissa of 2^7 at bit p is
// 2^7 + 2^p code.
// Source: Kim et al. 2022 (arXiv 2211.10017).
#pragma once
#include "kernels/cuda/packed_bits.cuh"
#include "kernels/cuda/ptx.cuh"

namespace satin::kernels {

using Two = __nv_bfloat162;
constexpr uint32_t kMagic = 0x43004300;  ///< 128, twice

__device__ __forceinline__ Two both(float x) { return __float2bfloat162_rn(x); }

template <class To, class From>
__device__ __forceinline__ To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  return *reinterpret_cast<const To*>(&from);
}

/// The codes of a lane's words (packed_weight.h) as 16-bit numbers: magic + 2^position(segment) code.
/// kLeast: the least position.
template <int kBits, int kLeast = 0>
struct Numbers {
  /// Parts of a code that are numbers of their own: part i counts 16^i.
  static constexpr int kParts = kBits == 8 ? 2 : 1;
  static constexpr __host__ __device__ int position(int segment) {
    const int here = kBits == 1 ? segment : kBits <= 3 && segment < 3 ? 2 * segment : 0;
    return here < kLeast ? kLeast : here;
  }

  /// Columns c0 c1 (kHalf 0) or c2 c3 of four kFour of row g (kRow 0) or g + 8.
  template <int kSegment, int kRow, int kFour, int kHalf, int kPart = 0>
  static __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[2 * kBits]) {
    constexpr uint32_t kBoth = 0x00010001;
    constexpr int p = position(kSegment), kByte = 8 * kHalf;
    if constexpr (kBits == 8) {
      return masked_or<kBoth * 0xf, kMagic>(shifted_right<kByte + 4 * kPart>(words[8 * kRow + 2 * kSegment + kFour]));
    } else if constexpr (kBits == 4) {
      constexpr int kAt = kByte + 4 * (kSegment % 2);
      return masked_or<kBoth * 0xf, kMagic>(shifted_right<kAt>(words[4 * kRow + 2 * (kSegment / 2) + kFour]));
    } else if constexpr (kBits == 1) {
      return masked_or<(kBoth << p), kMagic>(shifted_right<kByte + 4 * kFour + kSegment - p>(words[kRow]));
    } else {
      constexpr int kShift = kByte + 2 * kSegment - p;
      const uint32_t low =
          masked_or<(kBoth * 3 << p), kMagic>(shifted_right<kShift>(words[word_of_two_bits(kRow, kFour)]));
      if constexpr (kBits == 2) {
        return low;
      } else {
        constexpr int kHigh = kByte + 2 * kSegment + kFour - p - 2;
        return low | (shifted_right<kHigh>(words[4 + kRow]) & (kBoth * 4 << p));
      }
    }
  }
};

}  // namespace satin::kernels
