// Packed weights as operand A of 16-bit tensor core products whose other operand has its columns in their own order.
//
// Of 16 columns of a row, lane q of a quad then needs 2 q, 2 q + 1 and 2 q + 8, 2 q + 9; the layout (packed_weight.h)
// gives it eight neighbours of 32. So a quad's lanes exchange their words: what they get has the layout's form, with
// "four f" for "columns 16 f to 16 f + 15 of the segment", whose pair 0 is 2 q, 2 q + 1 and pair 1 the one 8 further.
// Then a number (packed_numbers.cuh) becomes round(scale * level) by a fused multiply-add and a product, or by a
// difference too where each group has a zero point; all but the last product is exact.
#pragma once
#include <bit>

#include "kernels/cuda/packed_numbers.cuh"

namespace satin::kernels {

/// What a lane does in an exchange; selectors are of __byte_perm.
struct QuadLane {
  __device__ __forceinline__ explicit QuadLane(int lane)
      : upper((lane & 2) != 0),
        given(lane & 1 ? 0x6240 : 0x7351),
        first(lane & 1 ? 0x3614 : 0x6240),
        second(lane & 1 ? 0x3715 : 0x7250) {}
  bool upper;
  uint32_t given, first, second;
};

/// Words of fours 0 and 1. Two steps: with the lane two on a whole four, with the next lane pairs of both.
__device__ __forceinline__ void exchange(uint32_t& word0, uint32_t& word1, const QuadLane& lane) {
  const uint32_t kept = lane.upper ? word1 : word0;
  const uint32_t got = __shfl_xor_sync(~0u, lane.upper ? word0 : word1, 2);
  const uint32_t low = lane.upper ? got : kept, high = lane.upper ? kept : got;  // of lanes 0 and 1, of 2 and 3
  const uint32_t pairs = __shfl_xor_sync(~0u, __byte_perm(low, high, lane.given), 1);
  word0 = __byte_perm(low, pairs, lane.first);
  word1 = __byte_perm(high, pairs, lane.second);
}

/// Words of one bit a code have both fours, the second kShift bits on: here of rows g and g + 8.
template <int kShift>
__device__ __forceinline__ void exchange_bits(uint32_t& lower, uint32_t& upper, const QuadLane& lane) {
  constexpr uint32_t kLow = kShift == 4 ? 0x0f0f0f0f : 0x55555555, kHigh = ~kLow;
  uint32_t four0 = (lower & kLow) | (upper << kShift & kHigh), four1 = (lower >> kShift & kLow) | (upper & kHigh);
  exchange(four0, four1, lane);
  lower = (four0 & kLow) | (four1 << kShift & kHigh);
  upper = (four0 >> kShift & kLow) | (four1 & kHigh);
}

/// All lanes of a warp together.
template <int kBits>
__device__ __forceinline__ void exchange_brick(uint32_t (&words)[2 * kBits], const QuadLane& lane) {
  if constexpr (kBits == 2 || kBits == 3) {
#pragma unroll
    for (int row = 0; row < 2; ++row) exchange(words[word_of_two_bits(row, 0)], words[word_of_two_bits(row, 1)], lane);
  } else if constexpr (kBits > 3) {
#pragma unroll
    for (int i = 0; i < kBits; ++i) exchange(words[2 * i], words[2 * i + 1], lane);
  }
  if constexpr (kBits == 1) exchange_bits<4>(words[0], words[1], lane);
  if constexpr (kBits == 3) exchange_bits<1>(words[4], words[5], lane);
}

/// Odd levels (step 2) need a bit more of the mantissa.
template <int kBits>
using LevelNumbers = Numbers<kBits, kBits <= 2 ? 1 : 0>;

/// level = factor * number + offset, each twice in a register: step / 2^p and -(128 step / 2^p + zero).
struct LevelLine {
  uint32_t factor, offset;
};
/// Zeros that it can hold; others are taken off by themselves.
constexpr int kMostLineZero = 127;

__device__ __forceinline__ uint32_t twice(float x) { return bits_as<uint32_t>(both(x)); }

/// -zero of a row as `weights` takes it.
template <int kBits>
struct RowZero {
  uint32_t numbers[LevelNumbers<kBits>::kParts];

  __device__ __forceinline__ explicit RowZero(uint32_t zero) {
    if constexpr (kBits == 8) {  // of both parts with the magic, -(128 + half a byte)
      numbers[0] = (kMagic | 0x80008000u) | (zero & 0xf) * 0x00010001u;
      numbers[1] = (kMagic | 0x80008000u) | (zero >> 4) * 0x00010001u;
    } else {
      numbers[0] = twice(-static_cast<float>(zero));
    }
  }
};

/// Weights of 16 columns kStep of a segment: row g (kRow 0) or g + 8, columns 2 q, 2 q + 1 (kHalf 0) or those 8 on.
/// kZeros: the line is without the zero, `zero` has it.
template <int kBits, bool kZeros, int kSegment, int kRow, int kStep, int kHalf>
__device__ __forceinline__ uint32_t weights(const uint32_t (&words)[2 * kBits], const LevelLine& line,
                                            const RowZero<kBits>& zero, uint32_t scale) {
  using Number = LevelNumbers<kBits>;
  const auto part = [&]<int kPart>() {
    return bits_as<Two>(Number::template pair<kSegment, kRow, kStep, kHalf, kPart>(words));
  };
  Two level;
  if constexpr (kBits == 8) {
    static_assert(kZeros);
    const Two high = __hadd2(part.template operator()<1>(), bits_as<Two>(zero.numbers[1]));
    level = __hfma2(high, both(16), __hadd2(part.template operator()<0>(), bits_as<Two>(zero.numbers[0])));
  } else {
    level = __hfma2(part.template operator()<0>(), bits_as<Two>(line.factor), bits_as<Two>(line.offset));
    if constexpr (kZeros) level = __hadd2(level, bits_as<Two>(zero.numbers[0]));
  }
  return bits_as<uint32_t>(__hmul2(level, bits_as<Two>(scale)));
}

/// The line of a segment, for step 1 or 2; zero: up to kMostLineZero, 0 for kZeros.
template <int kBits>
LevelLine level_line(int segment, int step, int zero) {
  const float factor = static_cast<float>(step) / static_cast<float>(1 << LevelNumbers<kBits>::position(segment));
  const auto of = [](float x) { return (std::bit_cast<uint32_t>(x) >> 16) * 0x00010001u; };  // x is a bfloat16
  return {of(factor), of(-(128 * factor + static_cast<float>(zero)))};
}

}  // namespace satin::kernels
