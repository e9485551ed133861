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
      return shifted_right<2 * kSegment - p>(words[word_of_two_bits(kRow, kFour)]) & kBytes * (3u << p);
    } else if constexpr (kBits == 1) {
      return shifted_right<kSegment + 4 * kFour - p>(words[kRow]) & kBytes * (1u << p);
    } else {
      const uint32_t low = shifted_right<2 * kSegment - p>(words[word_of_two_bits(kRow, kFour)]) & kBytes * (3u << p);
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
/// The largest of a warp's numbers, which a NaN is.
__device__ __forceinline__ float most_of(const float4& x) {
  const float here = larger_or_nan(larger_or_nan(fabsf(x.x), fabsf(x.y)), larger_or_nan(fabsf(x.z), fabsf(x.w)));
  // As bits: no float here has a sign.
  return __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(here))) + kLeastX;
}

/// Of several rows at once: an integer's instructions each wait for the one before. `most`: the largest number of each.
template <int kCount>
__device__ __forceinline__ void put_integers(const float4 (&x)[kCount], const SharedAt& to, float (&most)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) most[i] = most_of(x[i]);
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

/// One to four rows of x times bricks, as integers. kKeeps: addresses stay in registers.
template <int kBits, int kSegments, int kXRows, bool kKeeps, bool kZeros>
class IntegerProducts {
  static constexpr bool kOneRow = kXRows == 1;
  static constexpr int kTogether = kOneRow ? 4 : kSegments;  ///< segments whose products are one sum
  static constexpr int kSums = 4 / kTogether;
  using Code = Codes<kBits>;

 public:
  static constexpr int kSharedWords = kXRows * kXWords;  ///< of a warp

  __device__ __forceinline__ IntegerProducts(const PackedParams& p, uint32_t* xs, int lane)
      : p_(p),
        row_(lane % 4),
        b_from_{b_at(xs, lane, 0), b_at(xs, lane, 1), b_at(xs, lane, 2), b_at(xs, lane, 3)},
        whole_from_(kept(SharedAt(mine(xs, lane)))),
        to_(kept(SharedAt(xs + lane))) {
    // One row's sums are 2^p those of codes, p of segment q.
    int place = 0;
    if constexpr (kOneRow)
#pragma unroll
      for (int s = 1; s < 4; ++s) place = row_ == s ? Code::position(s) : place;
    if constexpr (kKeeps) place = in_register(place);
    power_ = __int_as_float((127 + place) << 23);
    unit_ = __int_as_float((127 - place) << 23);
    if (lane < 8) xs[kZerosAt + lane] = 0;
  }

  /// A lane's four columns of rows kFirst and up, between two __syncwarp.
  template <int kFirst, int kCount>
  __device__ __forceinline__ void put(const float4 (&x)[kCount]) {
    float most[kCount];
    put_integers(x, to_.plus(kFirst * kXWords), most);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float factor = most[i] * (1.f / kMostX) * unit_;
      x_factor_ = kOneRow || kFirst + i == row_ ? factor : x_factor_;
    }
  }
  __device__ __forceinline__ void load() {
    constexpr uint32_t kOne = 0x01010101, ones[4] = {kOne, kOne, kOne, kOne};
    const int magic = __float_as_int(kMagic), none[4] = {magic, magic, magic, magic};
#pragma unroll
    for (int s = 0; s < 4; ++s) b_from_[s].load(b_[s]);
    if constexpr (kOneRow) {
      uint2 whole;
      whole_from_.load(whole);
      int sum[4];
      multiply_add(sum, ones, whole, none);
      minus_x_[0] = sum_of_pairs(sum[0], sum[1]) * -power_;
    } else {
#pragma unroll
      for (int j = 0; j < kSums; ++j) {
        int sum[4];
        multiply_add(sum, ones, b_[j * kTogether], none);
#pragma unroll
        for (int s = j * kTogether + 1; s < (j + 1) * kTogether; ++s) multiply_add(sum, ones, b_[s], sum);
        minus_x_[j] = -sum_of_pairs(sum[0], sum[1]);
      }
    }
  }
  /// Adds rows g and g + 8 of a brick.
  __device__ __forceinline__ void add(const uint32_t (&words)[2 * kBits], const uint32_t (&scales)[kSums],
                                      const uint32_t (&zeros)[kSums], float (&to)[2]) const {
    const int magic = __float_as_int(kMagic), none[4] = {magic, magic, magic, magic};
    for_each<kSums>([&](auto sum_index) {
      constexpr int kSum = decltype(sum_index)::value;
      float2 zero{p_.zero, p_.zero};
      if (kZeros && (kOneRow || p_.zeros))
        zero = {static_cast<float>(zeros[kSum] & 0xff), static_cast<float>(zeros[kSum] >> 8)};
      const float2 scale = pair_of(scales[kSum], p_.scales_are_half);
      int sum[4];
      for_each<kTogether>([&](auto in_sum) {
        constexpr int kFirst = kSum * kTogether, s = kFirst + decltype(in_sum)::value;
        uint32_t a[4];
        Code::template operand<s, kOneRow>(words, a);
        if constexpr (s == kFirst)
          multiply_add(sum, a, b_[s], none);
        else
          multiply_add(sum, a, b_[s], sum);
      });
      to[0] = fmaf(scale.x * x_factor_, fmaf(zero.x, minus_x_[kSum], sum_of_pairs(sum[0], sum[1])), to[0]);
      to[1] = fmaf(scale.y * x_factor_, fmaf(zero.y, minus_x_[kSum], sum_of_pairs(sum[2], sum[3])), to[1]);
    });
  }

 private:
  static __device__ __forceinline__ SharedAt kept(const SharedAt& at) { return kKeeps ? at.in_register() : at; }
  /// B operand of a segment. Column g of one row is the high (even g) or the low bytes of segment g / 2, and of the
  /// others zeros: sums of a brick's segments are the product's columns. Else it is those bytes of row g / 2, and zeros
  /// where there is no such row.
  __device__ __forceinline__ const uint32_t* mine(const uint32_t* xs, int lane) const {
    const int g = lane / 4, q = lane % 4;
    return xs + (kOneRow ? 8 * (g / 2) : min(g / 2, p_.num_x_rows - 1) * kXWords) + g % 2 * kXStride + 2 * q;
  }
  __device__ __forceinline__ SharedAt b_at(const uint32_t* xs, int lane, int s) const {
    const int g = lane / 4, q = lane % 4;
    const bool is_here = kOneRow ? g / 2 == s : g / 2 < p_.num_x_rows;
    return kept(SharedAt(is_here ? mine(xs, lane) + (kOneRow ? 0 : 8 * s) : xs + kZerosAt + 2 * q));
  }
  const PackedParams& p_;
  const int row_;  ///< of x whose sums a lane has: q
  const SharedAt b_from_[4], whole_from_, to_;
  float power_, unit_, x_factor_ = 0;
  uint2 b_[4];
  float minus_x_[kSums];
};

}  // namespace
}  // namespace satin::kernels
