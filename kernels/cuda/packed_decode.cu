// One to four rows of x times a packed weight, as fast as its bytes arrive.
//
// Codes are 8-bit integers as they lie: one AND gives four of them, at bit p of each byte, and mma.m16n8k32 multiplies
// them with x as integers. x is made 16-bit integers, a scale for 128 columns, and these two bytes each, which are two
// columns of the product: 256 high + low. Sums of codes at different p are brought together as integers, so nothing is
// rounded before a group's scale. A zero point takes off zero * sum x, and sums of x are known before.
//
// A block of warps owns kRows bricks of rows and all columns, dealt to its warps brick by brick; a warp asks for its
// next kRows bricks before it computes with the last ones. What does not depend on the kernel before (weights, scales)
// is asked for before that one has ended (programmatic dependent launch). Sums over warps are made in a fixed order.
//
// A layer's rows are short work: on an H200 a launch costs .6 us after the one before, and 2,048 x 2,048 in 2 bits
// takes 2.4 us though its bytes take .3: x is made integers by every block, about 600 instructions a warp in all.
// Blocks of 8 warps, which leave room for the next kernel's, were slower (2.9 us; 8,192 columns 6.7 us against 4.5).
// Not bytes but chains of instructions are waited for: bricks that came through rings in shared memory, four times as
// far ahead, one at a time, took 12.5 us where four in registers side by side take 8.9 (8,192 x 8,192, 2 bits).
#include "kernels/cuda/packed_device.cuh"

namespace satin::kernels {
namespace {

constexpr int kMostIntegerRows = kMostHalfRows;  ///< of x: eight columns of the product
constexpr int kXStride = 40;                     ///< words of 128 bytes of x in shared memory: rows fall on other banks
constexpr int kMostX = 32639;                    ///< 127 * 256 + 127: both bytes of it are signed ones
constexpr float kMagic = 12582912;  ///< 1.5 * 2^23: added to an integer's bits, they are the bits of kMagic + integer
constexpr int kMagicBits = 0x4b400000;

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
      const uint32_t high = shifted_right<kSegment + 4 * kFour - p - 2>(words[4 + kRow]) & kBytes * (4u << p);
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

/// x in shared memory: bytes [brick][row of x][high, low][kXStride words], sums [brick][row][4], scales and sums of
/// squares [brick][row].
struct XMemory {
  uint32_t* bytes;
  float* sums;
  float* scales;
  float* squares;
  static __host__ __device__ int words(int bricks, int rows) { return bricks * rows * (2 * kXStride + 6); }
  __device__ XMemory(uint32_t* at, int bricks, int rows)
      : bytes(at),
        sums(reinterpret_cast<float*>(at + bricks * rows * 2 * kXStride)),
        scales(sums + bricks * rows * 4),
        squares(scales + bricks * rows) {}
};

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

/// A warp's share of x: 128 columns of a row at a time, kAtOnce of these together. Lane l has columns 4 l ... 4 l + 3.
template <bool kNormed, int kAtOnce, int kWarps>
__device__ __forceinline__ void make_integers(const PackedParams& p, const XMemory& memory, int first_brick, int count,
                                              int warp, int lane) {
  const int m = p.num_x_rows;
  for (int begin = warp; begin < count; begin += kAtOnce * kWarps) {
    Four<kNormed> fours[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int slot = begin + i * kWarps;
      const int brick = m == 1 ? slot : slot / m, row = m == 1 ? 0 : slot % m;
      const int column = (first_brick + brick) * kBrickColumns + 4 * lane;
      if (slot < count && column < p.num_columns) fours[i].load(p, row, column);
    }
    float4 x[kAtOnce];
    float most[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      x[i] = fours[i].made(p);
      most[i] = fmaxf(fmaxf(fabsf(x[i].x), fabsf(x[i].y)), fmaxf(fabsf(x[i].z), fabsf(x[i].w)));
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)  // as bits: no float here has a sign
      most[i] = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(most[i])));
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int slot = begin + i * kWarps;
      if (slot >= count) break;
      const float inverse = most[i] > 0 ? __fdividef(kMostX, most[i]) : 0;
      const int a = __float2int_rn(x[i].x * inverse), b = __float2int_rn(x[i].y * inverse),
                c = __float2int_rn(x[i].z * inverse), d = __float2int_rn(x[i].w * inverse);
      // In the bytes' order c0 c2 c1 c3; + 128 rounds the high byte to the nearest, and leaves a signed low one.
      const auto bytes = [](int c0, int c1, int c2, int c3) {
        return __byte_perm(__byte_perm(c0, c2, 0x0040), __byte_perm(c1, c3, 0x0040), 0x5410);
      };
      uint32_t* const to = memory.bytes + slot * 2 * kXStride + lane;
      to[0] = bytes((a + 128) >> 8, (b + 128) >> 8, (c + 128) >> 8, (d + 128) >> 8);
      to[kXStride] = bytes(a, b, c, d);
      int sum = a + b + c + d;
#pragma unroll
      for (int distance = 4; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
      if (lane % 8 == 0) memory.sums[slot * 4 + lane / 8] = static_cast<float>(sum);
      if (lane == 0) memory.scales[slot] = most[i] / kMostX;
      if constexpr (kNormed) {
        float squares = fours[i].squares();
#pragma unroll
        for (int distance = kLanes / 2; distance > 0; distance /= 2) squares += __shfl_xor_sync(~0u, squares, distance);
        if (lane == 0) memory.squares[slot] = squares;
      }
    }
  }
}

/// kSegments: of a brick's 32 columns that share a scale (4: a brick or more). kDepth: bricks a warp asks for ahead.
template <int kBits, int kSegments, int kRows, int kWarps, int kDepth>
__global__ void __launch_bounds__(32 * kWarps, 16 / kWarps) decode_kernel(const PackedParams p, int bricks_a_phase) {
  using Code = Codes<kBits>;
  let_dependents_start();
  uint32_t* const shared = launched_shared<uint32_t>();
  __shared__ float squares_of[kMostIntegerRows];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes, lane = thread % kLanes, g = lane / 4,
            q = lane % 4, m = p.num_x_rows;
  const int row_brick = static_cast<int>(blockIdx.x) * kRows;

  BrickReader<kBits, kSegments, kRows, kWarps> reader(p, row_brick, warp, lane);
  Bricks<kBits, kSegments, kRows> ahead[kDepth];
#pragma unroll
  for (int d = 0; d < kDepth; ++d) ahead[d] = reader.next();
  const XMemory memory(shared, min(bricks_a_phase, p.column_bricks), m);
  wait_for_dependencies();

  float total[kRows][2] = {};  // rows g and g + 8, row q of x
  for (int phase = 0; phase < p.column_bricks; phase += bricks_a_phase) {
    const int end = min(phase + bricks_a_phase, p.column_bricks), slots = (end - phase) * m;
    if (phase > 0) __syncthreads();
    const auto make = [&](auto at_once) {
      constexpr int kAtOnce = decltype(at_once)::value;
      if (p.norm_weight)
        make_integers<true, kAtOnce, kWarps>(p, memory, phase, slots, warp, lane);
      else
        make_integers<false, kAtOnce, kWarps>(p, memory, phase, slots, warp, lane);
    };
    slots <= kWarps ? make(std::integral_constant<int, 1>{}) : make(std::integral_constant<int, 4>{});
    __syncthreads();
    if (p.norm_weight && warp < m) {
      float squares = 0;
      for (int slot = m * lane + warp; slot < slots; slot += m * kLanes) squares += memory.squares[slot];
#pragma unroll
      for (int distance = kLanes / 2; distance > 0; distance /= 2) squares += __shfl_xor_sync(~0u, squares, distance);
      if (lane == 0) squares_of[warp] = phase > 0 ? squares_of[warp] + squares : squares;
    }
    for (int first = phase + warp; first < end; first += kDepth * kWarps) {
      for_each<kDepth>([&](auto depth) {
        constexpr int kAt = decltype(depth)::value;
        const int brick = first + kAt * kWarps;
        if (brick >= end) return;
        const auto now = ahead[kAt];
        ahead[kAt] = reader.next();
        // B operand: column g is the high (even g) or the low bytes of row g / 2.
        uint2 b[4] = {};
        if (g / 2 < m) {
          const uint32_t* const from = memory.bytes + (((brick - phase) * m + g / 2) * 2 + g % 2) * kXStride + 2 * q;
#pragma unroll
          for (int s = 0; s < 4; ++s) b[s] = *reinterpret_cast<const uint2*>(from + 8 * s);
        }
        // Of row q, whose high and low sums this lane has.
        const int slot = (brick - phase) * m + min(q, m - 1);
        const float x_scale = memory.scales[slot];
        const float4 sums = *reinterpret_cast<const float4*>(memory.sums + 4 * slot);
        const float sum_of[4] = {sums.x, sums.y, sums.z, sums.w};
        for_each<4 / kSegments>([&](auto group) {
          constexpr int kGroup = decltype(group)::value, kFirst = kGroup * kSegments;
          constexpr int kMost = most_position<Code>(kFirst, kSegments);
          float sum_x = 0;
#pragma unroll
          for (int s = 0; s < kSegments; ++s) sum_x += sum_of[kFirst + s];
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            int sum[8][4] = {};  // by position of the codes; unused ones cost nothing
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[kMost][i] = kMagicBits;
            for_each<kSegments>([&](auto in_group) {
              constexpr int s = kFirst + decltype(in_group)::value;
              const uint32_t a[4] = {
                  Code::template four<s, 0, 0>(now.words[r]), Code::template four<s, 1, 0>(now.words[r]),
                  Code::template four<s, 0, 1>(now.words[r]), Code::template four<s, 1, 1>(now.words[r])};
              multiply_add(sum[Code::position(s)], a, b[s]);
            });
            float of[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              int all = sum[kMost][i];
#pragma unroll
              for (int place = 0; place < kMost; ++place) all += sum[place][i] << (kMost - place);
              of[i] = __int_as_float(all) - kMagic;
            }
            const auto [scale, zero] = now.scale_and_zero(p, r, kGroup, g);
            constexpr float kUnit = 1.f / (1 << kMost);
            const float lower = (256 * of[0] + of[1]) * kUnit - zero.x * sum_x;
            const float upper = (256 * of[2] + of[3]) * kUnit - zero.y * sum_x;
            total[r][0] += scale.x * x_scale * lower;
            total[r][1] += scale.y * x_scale * upper;
          }
        });
      });
    }
  }

  float* const parts = reinterpret_cast<float*>(shared);
  __syncthreads();
  if (q < m)
#pragma unroll
    for (int r = 0; r < kRows; ++r) put_sums<kRows>(parts, m, warp, q, r, g, total[r][0], total[r][1]);
  add_and_store<kRows, kWarps>(p, parts, row_brick, [&](int x_row) {
    return p.norm_weight ? rsqrtf(squares_of[x_row] / static_cast<float>(p.num_columns) + p.norm_eps) : 1;
  });
}

template <int kBits, int kSegments, int kRows, int kWarps>
void launch(const PackedParams& p, CUstream_st* stream) {
  // So many that what a block has asked for is always about as much.
  constexpr int kDepth = kRows >= 4 ? 1 : (kBits == 8 || kSegments == 1 ? 2 : 4) / kRows;
  constexpr int kMostXWords = 96 * 1024 / 4 * kWarps / 16;  // of two kernels at a time a multiprocessor has both
  constexpr int kBricks = kWarps * kDepth;
  const int x_words = XMemory::words(1, p.num_x_rows);
  const int bricks_a_phase =
      std::min((p.column_bricks + kBricks - 1) / kBricks, std::max(1, kMostXWords / x_words / kBricks)) * kBricks;
  const int words = std::max(XMemory::words(std::min(bricks_a_phase, p.column_bricks), p.num_x_rows),
                             kWarps * p.num_x_rows * kRows * kBrickRows);
  launch_early(decode_kernel<kBits, kSegments, kRows, kWarps, kDepth>, (p.row_bricks + kRows - 1) / kRows, 32 * kWarps,
               4 * words, p, stream, bricks_a_phase);
}

}  // namespace

void packed_decode_cuda(const DecodeArgs& args, CUstream_st* stream) {
  check(args);
  if (args.num_rows > kMostIntegerRows) return packed_skinny_cuda(args, stream);
  const PackedParams p = params_of(args);
  for_bits_and_group(args.w.shape.bits, p.group_shift, [&](auto bits, auto segments) {
    constexpr int kBits = decltype(bits)::value, kSegments = decltype(segments)::value;
    for_tile<num_decode_tiles(kBits == 8 || kSegments == 1, false)>(args, [&](auto rows, auto warps) {
      launch<kBits, kSegments, decltype(rows)::value, decltype(warps)::value>(p, stream);
    });
  });
}

}  // namespace satin::kernels
