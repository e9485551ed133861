// A row of x times codes of one to three bits as they lie, by products of single bits (packed_decode_device.cuh).
//
// Words of codes are the A operand of mma.m16n8k256 (or k128), which adds up a AND b: nothing is taken apart. x is made
// integers of 16 digits, a scale for 128 columns, and B has a digit of them in each column: two products of eight
// columns, the even digits' and the odd ones'. Where A has bit i of a code, B has the digit of 2^i x, rounded by
// itself, so that a product's column is that digit of code x.
//
// The base is -2, so that odd digits count less than zero and no digit is a sign's: a sum of the even product starts
// as the bits of a float m, one of the odd product as those of -m (or nearly so), with as many bits after the point as
// leave a digit's weight. Then an even sum plus an odd one is the digits' sum as a float, exactly, without a conversion
// or a multiplication. Source: sums of AND by digits, Umuroglu et al. 2018 (arXiv 1806.08862); digits of base -2 by
// (x + 0xaaaa) XOR 0xaaaa, Schroeppel in HAKMEM (1972), item 128; 2^i x beside x, and the starts, are ours.
//
// Digits get where codes' bits stand as words of four columns: lanes put their words, rotated by where theirs go; a
// lane selects those of its column from all of them under masks, which a digit's rotation takes, and rotates back.
//
// Predicted (H200, 2 bits, cycles of one scheduler; measured by a program that is not kept): a product of 16 x 8 x 256
// bits takes 6.0 as one of 16 x 8 x 32 bytes does, 128 bits 4.2, logic 2.1: a brick's two products take 12 where four
// products of bytes and sixteen ANDs take 57; digits of 128 columns take 100 instructions where integers take 70, so
// that three and more bricks one above the other gain, with one bit two. Measured: packed_decode_device.cuh. Errors
// of sums against fp64 stay below 1e-4 of their size, the bound of integers of 16 bits (packed_decode_emulation_test).
#pragma once
#include "kernels/cuda/packed_integers.cuh"

namespace satin::kernels {
namespace {

template <int kBits, bool kZeros>
class BitProducts {
  static_assert(kBits <= 3);
  static constexpr int kMost = 21845 >> (kBits - 1);  ///< 2^i times it has 16 digits
  static constexpr bool kHasPairs = kBits > 1, kHasSingles = kBits != 2;
  static constexpr int kSinglesAt = kHasPairs ? 128 : 0;
  static constexpr uint32_t kEvenDigits = 0x55555555;
  static constexpr int kOddOnes = 0xaaaa;
  static constexpr float kOffset = -5 * 4096;  ///< of the sum of a lane's four digits, from where they start
  /// The largest integer of x that a zero point multiplies: as fine as kLeastX allows (over it, it is a float), but
  /// where all have one zero point, the middle of the codes, as the highest bit has them, so that a weight of zero adds
  /// roundings of fp32 alone.
  static constexpr int kMostOfSum = kZeros ? 1 << 18 : kMost << (kBits - 1);

 public:
  static constexpr int kSharedWords = 64 * kBits;  ///< of a warp

  __device__ __forceinline__ BitProducts(const PackedParams& p, const uint32_t* xs, int lane)
      : p_(p),
        pair_(lane / 8 * 2),
        single_(kBits == 1 ? lane / 8 + lane % 2 * 4 : lane / 8 * 2 + lane % 2),
        digit_(lane / 4 % 4 * 2),
        pairs_to_(xs + lane % 8 * 4 + lane / 8),
        pairs_from_(xs + lane / 16 * 64 + lane % 4 * 8),
        singles_to_(xs + kSinglesAt + lane % 8 / 2 * 8 + single_),
        singles_from_(xs + kSinglesAt + lane / 16 * 32 + lane % 4 * 8),
        unit_(static_cast<float>(1 << (lane % 4 * 4))),
        minus_first_(lane % 4 == 0 ? -static_cast<float>(kMost) / kMostOfSum : 0) {
    even_[0] = even_[2] = in_register(__float_as_int(0x1p24f - 4096));
    even_[1] = even_[3] = in_register(__float_as_int(4 * (0x1p24f - 4096)));
    odd_[0] = odd_[2] = in_register(__float_as_int(-0x1p24f));
    odd_[1] = odd_[3] = in_register(__float_as_int(-4 * 0x1p24f));
  }

  /// A lane's four columns, between two __syncwarp.
  template <int kFirst>
  __device__ __forceinline__ void put(const float4 (&x)[1]) {
    const float most = most_of(x[0]), inverse = kMost * approximate_inverse(most);
    x_factor_ = most * (1.f / kMost) * unit_;
    if constexpr (kHasPairs) {
      const Integers one(x[0], inverse), two(x[0], 2 * inverse);
      put_pairs<0>(one.low, two.low);
      put_pairs<64>(one.high, two.high);
    }
    if constexpr (kHasSingles) put_singles(Integers(x[0], (1 << (kBits - 1)) * inverse));
    // 128 integers' bits have the sum of their starts in them.
    const uint32_t starts = kBrickColumns * __float_as_uint(kMagic + kOddOnes);
    const uint32_t sum = __reduce_add_sync(~0u, Integers(x[0], inverse * (static_cast<float>(kMostOfSum) / kMost)).sum);
    minus_x_ = static_cast<float>(static_cast<int>(sum - starts)) * minus_first_;
    minus_zero_ = fmaf(p_.zero, minus_x_, -kOffset);
  }
  __device__ __forceinline__ void load() {
    const uint32_t twos = rotated(0x33333333, digit_), fours = rotated(0x0f0f0f0f, digit_);
    if constexpr (kHasPairs)
#pragma unroll
      for (int f = 0; f < 2; ++f)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          uint4 of;
          pairs_from_.plus(32 * odd + 4 * f).load(of);
          pairs_[odd][f] = rotated(select(select(of.x, of.y, twos), select(of.z, of.w, twos), fours), -digit_);
        }
    if constexpr (kHasSingles) {
      uint4 first, second;
      singles_from_.load(first);
      singles_from_.plus(4).load(second);
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const uint32_t one = odd ? ~kEvenDigits : kEvenDigits, two = odd ? rotated(twos, 1) : twos,
                       four = odd ? rotated(fours, 1) : fours;
        const auto of_four = [&](const uint4& x) { return select(select(x.x, x.y, one), select(x.z, x.w, one), two); };
        const uint32_t digits = select(of_four(first), of_four(second), four);
        singles_[odd] = rotated(odd ? ~digits : digits, -digit_ - odd);
      }
    }
  }
  /// Adds rows g and g + 8 of a brick: this lane's digits.
  __device__ __forceinline__ void add(const uint32_t (&words)[2 * kBits], const uint32_t (&scales)[1],
                                      const uint32_t (&zeros)[1], float (&to)[2]) const {
    const float2 scale = pair_of(scales[0], p_.scales_are_half);
    int even[4], odd[4];
    multiply(words, even, odd);
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const auto both = [&](int i) { return __int_as_float(even[2 * row + i]) + __int_as_float(odd[2 * row + i]); };
      const float sum = both(0) + both(1);
      const float rest =
          kZeros ? fmaf(static_cast<float>(row ? zeros[0] >> 8 : zeros[0] & 0xff), minus_x_, -kOffset) : minus_zero_;
      to[row] = fmaf((row ? scale.y : scale.x) * x_factor_, sum + rest, to[row]);
    }
  }

 private:
  static __device__ __forceinline__ uint32_t rotated(uint32_t x, int left) { return __funnelshift_l(x, x, left); }
  static __device__ __forceinline__ uint32_t select(uint32_t where_set, uint32_t else_this, uint32_t mask) {
    return (where_set & mask) | (else_this & ~mask);
  }

  /// factor x of four columns, plus kOddOnes: with that XOR, which is left to what takes them, they are digits.
  struct Integers {
    uint32_t low, high;  ///< bytes, in the order of codes: c0 c2 c1 c3
    uint32_t sum;        ///< with four times kMagic's bits and kOddOnes

    __device__ __forceinline__ Integers(const float4& x, float factor) {
      const auto integer = [&](float number) { return __float_as_uint(fmaf(number, factor, kMagic + kOddOnes)); };
      const uint32_t c0 = integer(x.x), c1 = integer(x.y), c2 = integer(x.z), c3 = integer(x.w);
      const uint32_t even = __byte_perm(c0, c2, 0x5410), odd = __byte_perm(c1, c3, 0x5410);
      low = __byte_perm(even, odd, 0x6420);
      high = __byte_perm(even, odd, 0x7531);
      sum = (c0 + c1 + c2) + c3;
    }
  };
  /// Digits of x and of 2 x beside each other: the even ones, and the odd ones 32 words on.
  template <int kOn>
  __device__ __forceinline__ void put_pairs(uint32_t of_one, uint32_t of_two) const {
    pairs_to_.plus(kOn).store(rotated(select_by<kEvenDigits, false>(of_one, of_two << 1), pair_));
    pairs_to_.plus(kOn + 32).store(rotated(select_by<kEvenDigits, true>(of_one >> 1, of_two), pair_));
  }
  __device__ __forceinline__ void put_singles(const Integers& of) const {
    singles_to_.store(rotated(of.low, single_));
    singles_to_.plus(32).store(rotated(of.high, single_));
  }
  __device__ __forceinline__ void multiply(const uint32_t (&words)[2 * kBits], int (&even)[4], int (&odd)[4]) const {
    if constexpr (kHasPairs) {
      const uint32_t a[4] = {words[0], words[1], words[2], words[3]};
      multiply_add_bits(even, a, pairs_[0], even_);
      multiply_add_bits(odd, a, pairs_[1], odd_);
    }
    if constexpr (kHasSingles) {
      const uint32_t a[2] = {words[2 * kBits - 2], words[2 * kBits - 1]};
      if constexpr (kHasPairs) {
        multiply_add_bits(even, a, singles_[0], even);
        multiply_add_bits(odd, a, singles_[1], odd);
      } else {
        multiply_add_bits(even, a, singles_[0], even_);
        multiply_add_bits(odd, a, singles_[1], odd_);
      }
    }
  }

  const PackedParams& p_;
  const int pair_, single_;  ///< bit of this lane's columns' codes
  const int digit_;          ///< the even one of a byte
  const SharedAt pairs_to_, pairs_from_, singles_to_, singles_from_;
  const float unit_, minus_first_;
  float x_factor_ = 0, minus_x_ = 0, minus_zero_ = 0;
  int even_[4], odd_[4];
  uint32_t pairs_[2][2], singles_[2];
};

}  // namespace
}  // namespace satin::kernels
