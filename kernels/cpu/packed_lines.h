// A brick as vectors of 16 words ("lines"): whose codes they are, known to the compiler.
//
// The word at element e of a line belongs to one row and one q; its codes are `slots` from the lowest bit up. Slot s of
// every line is in the same columns (8 bits: of every line with the same variant), so that x is arranged once and each
// slot is a multiplication by a whole vector of x. Slots that share their segments, and so their scales, are a part.
#pragma once
#include "kernels/cpu/packed_lane.h"

namespace satin::kernels {

template <int kBits>
struct Lines {
  static constexpr int kElements = 16, kPlaneBits = low_bits(kBits), kLines = 4 * kPlaneBits;
  static constexpr int kSlots = 32 / kPlaneBits, kVariants = kPlaneBits == 8 ? 2 : 1;
  static constexpr int kParts = kPlaneBits <= 2 ? 4 : kPlaneBits == 4 ? 2 : 1, kPartSlots = kSlots / kParts;
  /// Different scales in a line: of two rows or two segments, with one bit of four rows.
  static constexpr int kScales = kPlaneBits == 1 ? 4 : 2;

  struct Element {
    int row, q, word;  ///< row of the brick; word of the row's in the lane
  };
  static constexpr Element element(int line, int e) {
    const int width = std::min(2 * kPlaneBits, 4), at = kElements * line + e, lane = at / width % kLanes;
    const int number = at / (width * kLanes) * width + at % width;
    if (kPlaneBits == 2) return {lane / 4 + 8 * (number % 2), lane % 4, number / 2};
    return {lane / 4 + 8 * (number / kPlaneBits), lane % 4, number % kPlaneBits};
  }
  static constexpr int variant(int line) { return kVariants == 1 ? 0 : line / 8 % 2; }
  static constexpr int line_of_variant(int variant) { return 8 * variant; }
  static constexpr int part(int slot) { return slot % kParts; }

  /// Column of the brick.
  static constexpr int column(int line, int slot, int e) {
    const Element element = Lines::element(line, e);
    for (int i = 0; i < kSegments * kEight; ++i)
      if (const LanePlace place = lane_place(kPlaneBits, i / kEight, i % kEight);
          place.word == element.word && place.bit == slot * kPlaneBits)
        return i / kEight * kSegmentColumns + element.q * kEight + i % kEight;
    return -1;
  }
  static constexpr int segment(int line, int slot, int e) { return column(line, slot, e) / kSegmentColumns; }

  /// Which of the line's scales an element has, and the first element that has it.
  static constexpr int scale_of(int e) {
    if (kScales == 4) return e / 8 * 2 + e % 2;
    return kPlaneBits == 2 ? e % 2 : e % 4 / 2;
  }
  static constexpr int element_with(int scale) {
    if (kScales == 4) return scale / 2 * 8 + scale % 2;
    return kPlaneBits == 2 ? scale : 2 * scale;
  }

  /// What the loops rely on.
  static constexpr bool holds() {
    for (int line = 0; line < kLines; ++line)
      for (int slot = 0; slot < kSlots; ++slot)
        for (int e = 0; e < kElements; ++e) {
          const int like = element_with(scale_of(e));
          if (column(line, slot, e) < 0 || column(line, slot, e) != column(line_of_variant(variant(line)), slot, e) ||
              segment(line, slot, e) != segment(line, part(slot), like) ||
              element(line, e).row != element(line, like).row)
            return false;
        }
    return true;
  }
};

}  // namespace satin::kernels
