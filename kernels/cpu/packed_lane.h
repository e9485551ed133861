// The picture of packed_weight.h as numbers that the compiler knows: what a lane has of one row, and where.
#pragma once
#include <algorithm>

#include "kernels/packed_weight.h"

namespace satin::kernels {

/// A lane has kEight columns of each segment.
inline constexpr int kSegments = 4, kSegmentColumns = 32, kEight = 8;

struct LanePlace {
  int word;  ///< among the lane's words of the row
  int bit;
};

/// Column 32 segment + 8 q + c of a row, in a plane of 1, 2, 4 or 8 bits.
constexpr LanePlace lane_place(int bits, int segment, int c) {
  const int four = c / 4, byte = 8 * (c % 4 / 2 + 2 * (c % 2));  // c0 c2 c1 c3
  if (bits == 1) return {0, byte + segment + 4 * four};
  const int fours = 8 / bits;
  return {segment / fours * 2 + four, byte + bits * (segment % fours)};
}

/// The same of the high bits of 3-bit codes, a plane of their own.
constexpr LanePlace high_place(int segment, int c) { return {0, lane_place(2, segment, c).bit + c / 4}; }

/// Bits of the plane that comes first: of 3 the two low ones, which a plane of one follows.
constexpr int low_bits(int bits) { return bits == 3 ? 2 : bits; }
constexpr int low_plane_words(int bits) { return 2 * low_bits(bits) * kLanes; }

/// A lane's word of row g (or g + 8) in a plane: [chunk][lane][4], or [lane][2] where a lane has two words.
constexpr int plane_word(int bits, int lane, int second_row, int word) {
  const int width = std::min(2 * bits, 4), number = bits == 2 ? 2 * word + second_row : bits * second_row + word;
  return (number / width * kLanes + lane) * width + number % width;
}

/// body.template operator()<kBits>()
template <class Body>
void for_bits(int bits, const Body& body) {
  switch (bits) {
    case 1:
      return body.template operator()<1>();
    case 2:
      return body.template operator()<2>();
    case 3:
      return body.template operator()<3>();
    case 4:
      return body.template operator()<4>();
    case 8:
      return body.template operator()<8>();
  }
}

}  // namespace satin::kernels
