// One to four rows of x times a packed weight, as fast as its bytes arrive.
//
// Codes are 8-bit integers as they lie: one AND gives four of them, at bit p of each byte, and mma.m16n8k32 multiplies
// them with x as integers. x is made 16-bit integers, a scale for 128 columns, and these two bytes each, which are two
// columns of the product: 256 high + low. Nothing is rounded before a group's scale. A zero point takes off
// zero * sum x; a product with ones is that sum.
//
// One row of x takes two of the product's eight columns, and a brick's four segments the others: B of segment s is
// zeros but for columns 2 s and 2 s + 1, so four products into one sum leave each segment's in columns, that is in
// lanes, of its own. A lane then has one scale and one zero point a brick, of its segment and rows, whatever the group,
// and sums of lanes are brought together once at the end. Two to four rows fill the columns; sums of codes at different
// p are brought together as integers.
//
// A block of warps owns kRows bricks of rows and all columns, dealt to its warps brick by brick; a warp asks for its
// next kDepth columns of bricks before it computes with them. What does not depend on the kernel before (weights,
// scales) is asked for before that one has ended (programmatic dependent launch). Sums over warps are made in a fixed
// order.
//
// The loop takes about 50 instructions a brick of 2 bits and one row of x, of which 16 are the ANDs; it is compiled
// with zero points and without. Measured on an H200: one row takes as long as with 125 instructions (8,192 x 8,192, 2
// bits: 8.6 us, of which bytes take 4.7; 2,048 x 2,048: 2.6 us), so ends are waited for: the launch, x, whose integers
// every block makes, sums over warps. Four rows took 14.5 us, and take 10.9. Tried and slower: bricks through rings in
// shared memory, four times as far ahead; 64 registers, so that a multiprocessor has two blocks or the next kernel's
// too (9.0 us, 4,096 x 4,096 5.0 against 4.4, a token of the 1.2b shape 477 against 435); asking twice as far ahead
// (4 bits 16.2 against 12.6); a copy of x for each quarter of the blocks (the same). All layers of a token in one
// launch, of blocks that stay: weights by the copy engine a layer ahead, numbers handed over through the L2 with a mark
// in their last bit. It took 373 us for the 16 layers of the 1.2b shape with 2 bits, where launches take 367: a number
// is seen by all blocks 1.1 to 1.9 us after it was written, asking for it again and again keeps the L2 from all else,
// and with one block a multiprocessor the instructions of a brick are no longer hidden behind its bytes.
#include "kernels/cuda/packed_device.cuh"

namespace satin::kernels {
namespace {

constexpr int kMostIntegerRows = kMostHalfRows;  ///< of x: eight columns of the product
constexpr int kXStride = 40;                     ///< words of 128 bytes of x in shared memory: rows fall on other banks
constexpr int kMostX = 32639;                    ///< 127 * 256 + 127: both bytes of it are signed ones
constexpr float kMagic = 12582912;  ///< 1.5 * 2^23: added to an integer's bits, they are the bits of kMagic + integer
constexpr float kLeastX = 1e-33f;   ///< smaller ones are zeros: what divides by them has no float

/// The codes of a lane's words (packed_weight.h) as A operands.
template <int kBits>
struct Codes {
  static constexpr int kWords = 2 * kBits;
  /// Bit of each byte where a segment's codes stand in its operand.
  static constexpr __host__ __device__ int position(int segment) {
    if (kBits == 8) return 0;
    if (kBits == 4) return 4 * (segment % 2);
    if (kBits == 3 && segment == 3) return 0;
    return kBits == 1 ? segment : 2 * segment;
  }

  /// Four codes: of row g (kRow 0) or g + 8, four kFour of the segment.
  template <int kSegment, int kRow, int kFour>
  static __device__ __forceinline__ uint32_t four(const uint32_t (&words)[kWords]) {
    constexpr uint32_t kBytes = 0x01010101;
    constexpr int p = position(kSegment);
    if constexpr (kBits == 8) {
      return words[8 * kRow + 2 * kSegment + kFour];
    } else if constexpr (kBits == 4) {
      return words[4 * kRow + 2 * (kSegment / 2) + kFour] & kBytes * (0xfu << p);
    } else if constexpr (kBits == 2) {
      return words[2 * kRow + kFour] & kBytes * (3u << p);
    } else if constexpr (kBits == 1) {
      return shifted_right<4 * kFour>(words[kRow]) & kBytes * (1u << p);
    } else {
      const uint32_t low = shifted_right<2 * kSegment - p>(words[2 * kRow + kFour]) & kBytes * (3u << p);
      const uint32_t high = shifted_right<2 * kSegment + kFour - p - 2>(words[4 + kRow]) & kBytes * (4u << p);
      return low | high;
    }
  }
};

template <class Code>
constexpr __host__ __device__ int most_position(int first, int count) {
  int most = 0;
  for (int s = first; s < first + count; ++s) most = Code::position(s) > most ? Code::position(s) : most;
  return most;
}

/// x in shared memory: [brick][row of x][high, low][kXStride words], bytes and, after the high ones, the scale.
constexpr int kXWords = 2 * kXStride, kScaleAt = kBrickColumns / 4;

/// Four columns of x before they are made: one load, or of a normed one two.
template <bool kNormed>
struct Four {
  uint2 raw = {};
  __device__ __forceinline__ void load(const PackedParams& p, int row, int column) {
    raw = __ldg(reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(p.x) +
                                               static_cast<int64_t>(row) * p.num_columns + column));
  }
  __device__ __forceinline__ float4 made(const PackedParams& p) const {
    const float2 first = pair_of(raw.x, p.x_is_half), second = pair_of(raw.y, p.x_is_half);
    return {first.x, first.y, second.x, second.y};
  }
};
template <>
struct Four<true> {
  float4 stream = {}, weight = {};
  __device__ __forceinline__ void load(const PackedParams& p, int row, int column) {
    stream = *reinterpret_cast<const float4*>(static_cast<const float*>(p.x) +
                                              static_cast<int64_t>(row) * p.num_columns + column);
    weight = __ldg(reinterpret_cast<const float4*>(p.norm_weight + column));
  }
  /// Not yet divided by the norm: the integers are of the largest, whatever it is, and their sums can be divided.
  __device__ __forceinline__ float4 made(const PackedParams&) const {
    return {stream.x * weight.x, stream.y * weight.y, stream.z * weight.z, stream.w * weight.w};
  }
  __device__ __forceinline__ float squares() const {
    return (stream.x * stream.x + stream.y * stream.y) + (stream.z * stream.z + stream.w * stream.w);
  }
};

/// A warp's share of x: 128 columns of a row at a time, of kAtOnce bricks (one row of x) or rows together. Lane l has
/// columns 4 l ... 4 l + 3. Adds up a normed one's squares, of the lane's columns.
template <bool kNormed, int kXRows, int kWarps>
__device__ __forceinline__ void make_integers(const PackedParams& p, uint32_t* shared, int first_brick, int count,
                                              int warp, int lane, float (&squares)[kXRows]) {
  constexpr int kAtOnce = 4, kBricks = kXRows == 1 ? kAtOnce : 1;
  const int m = kXRows == 1 ? 1 : p.num_x_rows;
  const auto brick_of = [&](int begin, int i) { return kXRows == 1 ? begin + i * kWarps : begin; };
  const auto is_one = [&](int begin, int i) { return kXRows == 1 ? brick_of(begin, i) < count : i < m; };
  for (int begin = warp; begin < count; begin += kBricks * kWarps) {
    Four<kNormed> fours[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int column = (first_brick + brick_of(begin, i)) * kBrickColumns + 4 * lane;
      if (is_one(begin, i) && column < p.num_columns) fours[i].load(p, kXRows == 1 ? 0 : i, column);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (!is_one(begin, i)) break;
      const float4 x = fours[i].made(p);
      const float most_here = fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
      // As bits: no float here has a sign.
      const float most = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(most_here)));
      const float inverse = most > kLeastX ? __fdividef(kMostX, most) : 0;
      // The integers' low 16 bits, as they stand in kMagic + integer.
      const auto integer = [&](float number) { return __float_as_uint(fmaf(number, inverse, kMagic)); };
      const uint32_t a = integer(x.x), b = integer(x.y), c = integer(x.z), d = integer(x.w);
      // In the bytes' order c0 c2 c1 c3; + 128 rounds the high byte to the nearest, and leaves a signed low one.
      const int slot = kXRows == 1 ? brick_of(begin, i) : begin * m + i;
      uint32_t* const to = shared + slot * kXWords + lane;
      to[0] = __byte_perm(__byte_perm(a + 128, c + 128, 0x0051), __byte_perm(b + 128, d + 128, 0x0051), 0x5410);
      to[kXStride] = __byte_perm(__byte_perm(a, c, 0x0040), __byte_perm(b, d, 0x0040), 0x5410);
      if (lane == 0) to[kScaleAt] = __float_as_uint(most * (1.f / kMostX));
      if constexpr (kNormed) squares[kXRows == 1 ? 0 : i] += fours[i].squares();
    }
  }
}

__device__ __forceinline__ float sum_of_pairs(int high, int low) { return static_cast<float>(high * 256 + low); }

/// kSegments: of a brick's 32 columns that share a scale (4: a brick or more). kXRows: rows of x, or the most of them.
/// kDepth: bricks a warp asks for ahead.
template <int kBits, int kSegments, int kRows, int kWarps, int kXRows, int kDepth>
__global__ void __launch_bounds__(32 * kWarps, 16 / kWarps) decode_kernel(const PackedParams p, int bricks_a_phase) {
  using Code = Codes<kBits>;
  constexpr bool kOneRow = kXRows == 1;
  constexpr int kGroups = 4 / kSegments;
  let_dependents_start();
  uint32_t* const shared = launched_shared<uint32_t>();
  __shared__ float squares_of[kWarps][kXRows];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes, lane = thread % kLanes, g = lane / 4,
            q = lane % 4, m = kOneRow ? 1 : p.num_x_rows;
  const int row_brick = static_cast<int>(blockIdx.x) * kRows;

  BricksAhead<kBits, kSegments, kRows, kWarps, kDepth, !kOneRow> ahead(p, row_brick, warp, lane);
  for_each<kDepth>([&](auto depth) { ahead.template load<decltype(depth)::value>(p.zeros != nullptr); });
  ahead.advance();
  wait_for_dependencies();

  // B operand. Column g of one row is the high (even g) or the low bytes of its segment g / 2, and of the others zeros:
  // sums of a brick's segments are the product's columns. Else it is those bytes of row g / 2, in all segments.
  uint2 b[4] = {};
  const auto has_b = [&](int s) { return kOneRow ? g / 2 == s : g / 2 < m; };
  const int b_at = (kOneRow ? 0 : min(g / 2, m - 1)) * kXWords + g % 2 * kXStride + (kOneRow ? 8 * (g / 2) : 0) + 2 * q;
  const int scale_at = (kOneRow ? 0 : min(q, m - 1)) * kXWords + kScaleAt;
  const uint32_t ones[4] = {0x01010101, 0x01010101, 0x01010101, 0x01010101};
  // One row's sums are 2^p those of codes, p of segment q.
  float unit = 1;
  if constexpr (kOneRow)
#pragma unroll
    for (int s = 0; s < 4; ++s) unit = q == s ? static_cast<float>(1 << Code::position(s)) : unit;

  float total[kRows][2] = {};  // rows g and g + 8, of segment q or of row q of x
  const auto add_up = [&](int bricks, auto with_zeros) {
    for (int first = warp; first < bricks; first += kDepth * kWarps) {
      for_each_while<kDepth>([&](auto depth) {
        constexpr int kAt = decltype(depth)::value;
        if (kAt > 0 && first + kAt * kWarps >= bricks) return false;
        const int slot = (first + kAt * kWarps) * m;
        const SharedAt from(shared + slot * kXWords + b_at);
        const float x_scale = __uint_as_float(shared[slot * kXWords + scale_at]);
        const auto add = [&](int r, int pair, int(&sum)[4], float x_factor, float minus_x) {
          float2 zero{p.zero, p.zero};
          if (with_zeros) {
            const uint32_t zeros = ahead.zeros[kAt][r][pair];
            zero = {static_cast<float>(zeros & 0xff), static_cast<float>(zeros >> 8)};
          }
          const float2 scale = pair_of(ahead.scales[kAt][r][pair], p.scales_are_half);
          total[r][0] += scale.x * x_factor * fmaf(zero.x, minus_x, sum_of_pairs(sum[0], sum[1]));
          total[r][1] += scale.y * x_factor * fmaf(zero.y, minus_x, sum_of_pairs(sum[2], sum[3]));
        };
        if constexpr (kOneRow) {
          uint2 whole{};
          from.load_if(true, whole);
#pragma unroll
          for (int s = 0; s < 4; ++s) from.load_if(has_b(s), b[s]);
          int sum_x[4] = {};
          multiply_add(sum_x, ones, whole);
          const float minus_x = sum_of_pairs(sum_x[0], sum_x[1]) * -unit;
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            int sum[4] = {};
            for_each<4>([&](auto segment) {
              constexpr int s = decltype(segment)::value;
              const uint32_t(&words)[2 * kBits] = ahead.words[kAt][r];
              const uint32_t a[4] = {Code::template four<s, 0, 0>(words), Code::template four<s, 1, 0>(words),
                                     Code::template four<s, 0, 1>(words), Code::template four<s, 1, 1>(words)};
              multiply_add(sum, a, b[s]);
            });
            add(r, 0, sum, x_scale, minus_x);
          }
        } else {
#pragma unroll
          for (int s = 0; s < 4; ++s) from.plus(8 * s).load_if(has_b(s), b[s]);
          for_each<kGroups>([&](auto group) {
            constexpr int kFirst = decltype(group)::value * kSegments, kMost = most_position<Code>(kFirst, kSegments);
            int sum_x[4] = {};
#pragma unroll
            for (int s = kFirst; s < kFirst + kSegments; ++s) multiply_add(sum_x, ones, b[s]);
            const float minus_x = sum_of_pairs(sum_x[0], sum_x[1]) * -(1 << kMost);
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
              int sum[8][4] = {};  // by position of the codes; unused ones cost nothing
              for_each<kSegments>([&](auto in_group) {
                constexpr int s = kFirst + decltype(in_group)::value;
                const uint32_t(&words)[2 * kBits] = ahead.words[kAt][r];
                const uint32_t a[4] = {Code::template four<s, 0, 0>(words), Code::template four<s, 1, 0>(words),
                                       Code::template four<s, 0, 1>(words), Code::template four<s, 1, 1>(words)};
                multiply_add(sum[Code::position(s)], a, b[s]);
              });
#pragma unroll
              for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int place = 0; place < kMost; ++place) sum[kMost][i] += sum[place][i] << (kMost - place);
              add(r, decltype(group)::value, sum[kMost], x_scale * (1.f / (1 << kMost)), minus_x);
            }
          });
        }
        ahead.template load<kAt>(with_zeros);
        return true;
      });
      ahead.advance();
    }
  };
  for (int phase = 0; phase < p.column_bricks; phase += bricks_a_phase) {
    const int bricks = min(bricks_a_phase, p.column_bricks - phase);
    if (phase > 0) __syncthreads();
    float squares[kXRows] = {};
    if (p.norm_weight) {
      make_integers<true, kXRows, kWarps>(p, shared, phase, bricks, warp, lane, squares);
#pragma unroll
      for (int i = 0; i < kXRows; ++i) {
#pragma unroll
        for (int distance = kLanes / 2; distance > 0; distance /= 2)
          squares[i] += __shfl_xor_sync(~0u, squares[i], distance);
        if (lane == 0) squares_of[warp][i] = phase > 0 ? squares_of[warp][i] + squares[i] : squares[i];
      }
    } else {
      make_integers<false, kXRows, kWarps>(p, shared, phase, bricks, warp, lane, squares);
    }
    __syncthreads();
    if constexpr (kOneRow)
      for_zeros(p, [&](auto zeros) { add_up(bricks, zeros); });
    else
      add_up(bricks, p.zeros != nullptr);
  }

  float* const parts = reinterpret_cast<float*>(shared);
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if constexpr (kOneRow)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        total[r][i] /= unit;  // a power of two
        total[r][i] += __shfl_xor_sync(~0u, total[r][i], 1);
        total[r][i] += __shfl_xor_sync(~0u, total[r][i], 2);
      }
    if (q < m) put_sums<kRows>(parts, m, warp, q, r, g, total[r][0], total[r][1]);
  }
  add_and_store<kRows, kWarps>(p, parts, row_brick, [&](int x_row) {
    if (!p.norm_weight) return 1.f;
    float squares = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) squares += squares_of[w][x_row];
    return rsqrtf(squares / static_cast<float>(p.num_columns) + p.norm_eps);
  });
}

template <int kBits, int kSegments, int kRows, int kWarps, int kXRows>
void launch(const PackedParams& p, CUstream_st* stream) {
  // So many that what a block has asked for is always about as much.
  constexpr int kDepth = kRows >= 4 ? 1 : (kBits == 8 || kSegments == 1 ? 2 : 4) / kRows;
  constexpr int kMostXWords = 96 * 1024 / 4 * kWarps / 16;  // of two kernels at a time a multiprocessor has both
  constexpr int kBricks = kWarps * kDepth;
  const int x_words = p.num_x_rows * kXWords;
  const int bricks_a_phase =
      std::min((p.column_bricks + kBricks - 1) / kBricks, std::max(1, kMostXWords / x_words / kBricks)) * kBricks;
  const int words =
      std::max(std::min(bricks_a_phase, p.column_bricks) * x_words, kWarps * p.num_x_rows * kRows * kBrickRows);
  launch_early(decode_kernel<kBits, kSegments, kRows, kWarps, kXRows, kDepth>, (p.row_bricks + kRows - 1) / kRows,
               32 * kWarps, 4 * words, p, stream, bricks_a_phase);
}

}  // namespace

void packed_decode_cuda(const DecodeArgs& args, CUstream_st* stream) {
  check(args);
  if (args.num_rows > kMostIntegerRows) return packed_skinny_cuda(args, stream);
  const PackedParams p = params_of(args);
  for_bits_and_group(args.w.shape.bits, p.group_shift, [&](auto bits, auto segments) {
    constexpr int kBits = decltype(bits)::value, kSegments = decltype(segments)::value;
    for_tile<num_decode_tiles(kBits == 8 || kSegments == 1, false)>(args, [&](auto rows, auto warps) {
      constexpr int kRows = decltype(rows)::value, kWarps = decltype(warps)::value;
      if (p.num_x_rows == 1)
        launch<kBits, kSegments, kRows, kWarps, 1>(p, stream);
      else
        launch<kBits, kSegments, kRows, kWarps, kMostIntegerRows>(p, stream);
    });
  });
}

}  // namespace satin::kernels
