// Codes, and a few rows of x, as operands of products of 8-bit integers (packed_decode_device.cuh).
#pragma once
#include "kernels/cuda/packed_device.cuh"

namespace satin::kernels {
namespace {

constexpr int kMostX = 32639;       ///< 127 * 256 + 127: both bytes of it are signed ones
constexpr float kMagic = 12582912;  ///< 1.5 * 2^23: added to an integer's bits, they are the bits of kMagic + integer
constexpr float kLeastX = 1e-33f;   ///< added to what divides: by smaller numbers the result has no float

/// The codes of a lane's words (packed_weight.h) as A operands.
template <int kBits>
struct Codes {
  static constexpr int kWords = 2 * kBits;
  /// Bit of each byte where a segment's codes stand, if one AND is to be all.
  static constexpr __host__ __device__ int position(int segment) {
    if (kBits == 8) return 0;
    if (kBits == 4) return 4 * (segment % 2);
    if (kBits == 3 && segment == 3) return 0;
    return kBits == 1 ? segment : 2 * segment;
  }

  /// Four codes at bit p of each byte: of row g (kRow 0) or g + 8, four kFour of the segment.
  template <int kSegment, int kRow, int kFour, int p>
  static __device__ __forceinline__ uint32_t four(const uint32_t (&words)[kWords]) {
    constexpr uint32_t kBytes = 0x01010101;
    if constexpr (kBits == 8) {
      return words[8 * kRow + 2 * kSegment + kFour];
    } else if constexpr (kBits == 4) {
      return shifted_right<4 * (kSegment % 2) - p>(words[4 * kRow + 2 * (kSegment / 2) + kFour]) & kBytes * (0xfu << p);
    } else if constexpr (kBits == 2) {
      return shifted_right<2 * kSegment - p>(words[2 * kRow + kFour]) & kBytes * (3u << p);
    } else if constexpr (kBits == 1) {
      return shifted_right<kSegment + 4 * kFour - p>(words[kRow]) & kBytes * (1u << p);
    } else {
      const uint32_t low = shifted_right<2 * kSegment - p>(words[2 * kRow + kFour]) & kBytes * (3u << p);
      const uint32_t high = shifted_right<2 * kSegment + kFour - p - 2>(words[4 + kRow]) & kBytes * (4u << p);
      return low | high;
    }
  }
  /// The A operand of a segment's product.
  template <int kSegment, bool kInPlace>
  static __device__ __forceinline__ void operand(const uint32_t (&words)[kWords], uint32_t (&a)[4]) {
    constexpr int p = kInPlace ? position(kSegment) : 0;
    a[0] = four<kSegment, 0, 0, p>(words);
    a[1] = four<kSegment, 1, 0, p>(words);
    a[2] = four<kSegment, 0, 1, p>(words);
    a[3] = four<kSegment, 1, 1, p>(words);
  }
};

/// 256 high + low, of sums that began at kMagic's bits.
__device__ __forceinline__ float sum_of_pairs(int high, int low) {
  return fmaf(__int_as_float(high) - kMagic, 256, __int_as_float(low) - kMagic);
}

__device__ __forceinline__ float4 four_of(uint2 bits, bool is_half) {
  const float2 first = pair_of(bits.x, is_half), second = pair_of(bits.y, is_half);
  return {first.x, first.y, second.x, second.y};
}
/// Of a normed x, not yet divided by the norm: the integers are of the largest, whatever it is, and their sums can be
/// divided. Adds the stream's squares up.
__device__ __forceinline__ float4 normed_four(const PackedParams& p, int row, int column, float& squares) {
  const float4 stream = *reinterpret_cast<const float4*>(static_cast<const float*>(p.x) +
                                                         static_cast<int64_t>(row) * p.num_columns + column),
               weight = __ldg(reinterpret_cast<const float4*>(p.norm_weight + column));
  squares += (stream.x * stream.x + stream.y * stream.y) + (stream.z * stream.z + stream.w * stream.w);
  return {stream.x * weight.x, stream.y * weight.y, stream.z * weight.z, stream.w * weight.w};
}

/// A brick's columns of a row of x as integers, in a warp's shared memory: words of high bytes, of low bytes, and zeros
/// after each. Rows fall on other banks.
constexpr int kXStride = 40, kXWords = 2 * kXStride, kZerosAt = kBrickColumns / 4;
/// Of several rows at once: an integer's instructions each wait for the one before. `most`: the largest number of each,
/// which a NaN is.
template <int kCount>
__device__ __forceinline__ void put_integers(const float4 (&x)[kCount], const SharedAt& to, float (&most)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float here =
        larger_or_nan(larger_or_nan(fabsf(x[i].x), fabsf(x[i].y)), larger_or_nan(fabsf(x[i].z), fabsf(x[i].w)));
    // As bits: no float here has a sign.
    most[i] = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(here))) + kLeastX;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float inverse = kMostX * approximate_inverse(most[i]);
    // An integer's low 16 bits are those of kMagic + integer; + 128 rounds the high byte to the nearest, and leaves a
    // signed low one. In the bytes' order c0 c2 c1 c3.
    const auto integer = [&](float number) { return fmaf(number, inverse, kMagic); };
    const auto high = [](float number) { return __float_as_uint(number + 128); };
    const float a = integer(x[i].x), b = integer(x[i].y), c = integer(x[i].z), d = integer(x[i].w);
    const SharedAt at = to.plus(i * kXWords);
    at.store(__byte_perm(__byte_perm(high(a), high(c), 0x0051), __byte_perm(high(b), high(d), 0x0051), 0x5410));
    at.plus(kXStride).store(__byte_perm(__byte_perm(__float_as_uint(a), __float_as_uint(c), 0x0040),
                                        __byte_perm(__float_as_uint(b), __float_as_uint(d), 0x0040), 0x5410));
  }
}

}  // namespace
}  // namespace satin::kernels
