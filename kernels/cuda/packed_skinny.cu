// Five to sixteen rows of x (bfloat16) times a packed weight.
//
// Codes become bfloat16 numbers without a conversion: a code that is put into the mantissa of 2^7 at bit p is
// 2^7 + 2^p code. With x 2^-p as the other operand of mma.m16n8k16, a sum is sum (2^(7-p) x) + sum (code x), of which
// the first depends on x alone: it is computed once for a block's rows, with the sum of x that a zero point takes off,
// and taken off where sums begin. All numbers are exact, sums are fp32. 8-bit codes are two of 4 bits. Blocks, reading
// ahead and sums over warps as in packed_decode_device.cuh; x is read ahead too, each warp its bricks' columns. Source:
// the numbers, Kim et al. 2022 (arXiv 2211.10017); their sum apart is ours.
//
// Measured (H200, 16 rows, 8,192 x 8,192, 2 bits, groups of 128): 13.6 us; products alone 6.3, words alone 6.6, without
// products and numbers 9.6: a brick takes 250 cycles a scheduler, its 24 products 6.1 each, its 95 logic instructions
// and shifts 2.2 to 2.3 each, multiply-adds of integers 4.5. Tried: x in shared memory with its sums made once a block,
// columns split over clusters of two to eight blocks. Fewer products and reads, but 15.7 us at best; faster only where
// this one's registers do not suffice (8 bits with zero points: 28.0 against 35.2). Four row bricks a block, which
// halve the reads of x: 22.7 us with eight warps, 14.9 with sixteen, where two row bricks took 13.1. Blocks that stay
// for their next rows, whose words they ask for before sums are made: 13.7 us, and 112 instead of 93 for
// 128,256 x 2,048 at 8 bits. Words through shared memory by cp.async, two or three columns of bricks ahead, of columns
// that are neighbours: 8,192 x 8,192 at 2 bits 13.6 us where this took 13.0, at 4 bits 15.6 (13.5), at 8 bits 29.9
// (23). Into registers as here, but neighbouring columns: 13.3, 15.2 and 27.8.
//
// Tried whole, on integers as the kernels for fewer rows (codes as they lie, two bytes of a 16-bit x as two columns,
// made once a block in shared memory, columns over clusters, bricks by cp.async): half of the logic instructions, and
// still slower for most. 16 rows, groups of 128, us at 2 / 8 bits, theirs with zero points:
//                      this          wgmma m64n32k32     mma.sync m16n8k32
//     4,096 x 4,096    6.3  10.6     8.5  10.6           9.4  11.5
//     8,192 x 8,192   13.3  22.1    16.3  24.8
//    14,336 x 4,096   15.5  23.5    14.9  22.3
// A fit over 40 shapes and cuts of the first (2 bits): 3.9 us, .11 a column of a block's bricks (its integers), .51 for
// each four bricks of a scheduler (254 cycles a brick, where its products take 64, logic 46, fp32 66), .65 for each 32
// sums of a warp over eight blocks. By another fit a conversion of an integer to fp32 costs 8 cycles. Bricks in
// registers were slower still (22.6 at 8,192 x 8,192): loads of a warp have six counters, so that waiting for one brick
// of eight is waiting for others. Of clusters of four or eight an H200 runs 120 blocks at once, not 132. Cycles a warp
// instruction of one scheduler: mma.sync 6.2, wgmma m64n32k32 16.0, logic, shifts, byte permutes and integer
// multiply-adds 2.3, fp32 additions 1.1, fused multiply-adds 1.6.
#include "kernels/cuda/packed_bricks.cuh"
#include "kernels/cuda/packed_numbers.cuh"
#include "kernels/cuda/packed_outputs.cuh"

namespace satin::kernels {
namespace {

/// x of a brick's columns, of rows 8 n + g: [n][segment][columns 8 q + 0 1, 2 3, 4 5, 6 7]; zeros outside. A segment of
/// the warp's next brick is asked for as soon as the last one's was used.
template <int kTiles, int kWarps>
class XAhead {
 public:
  uint32_t x[kTiles][4][4] = {};

  __device__ __forceinline__ XAhead(const PackedParams& p, int warp, int g, int q)
      : x_(static_cast<const uint32_t*>(p.x)), columns_left_(p.num_columns - warp * kBrickColumns - 8 * q) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n)  // rows that there are not become columns of the product that nothing reads
      at_[n] = static_cast<unsigned>(min(8 * n + g, p.num_x_rows - 1)) * static_cast<unsigned>(p.num_columns / 8) +
               static_cast<unsigned>(warp * kBrickColumns / 8 + q);
  }
  __device__ __forceinline__ void load(int segment) {
    const bool is_here = columns_left_ > 32 * segment;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      uint32_t(&to)[4] = x[n][segment];
      load_if(is_here, to[0], to[1], to[2], to[3], x_ + uint64_t{at_[n]} * 4 + 16 * segment);
    }
  }
  /// After all four segments.
  __device__ __forceinline__ void advance() {
    if (columns_left_ <= 96)
#pragma unroll
      for (int s = 0; s < 4; ++s)
        if (columns_left_ <= 32 * s)
#pragma unroll
          for (int n = 0; n < kTiles; ++n) clear(x[n][s]);
    columns_left_ -= kWarps * kBrickColumns;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) at_[n] += kWarps * kBrickColumns / 8;
  }

 private:
  const uint32_t* const x_;
  int columns_left_;
  unsigned at_[kTiles];  ///< of 16 bytes each
};

/// kTiles: of 8 rows of x. kDepth: bricks a warp asks for ahead.
template <int kBits, int kSegments, int kRows, int kWarps, int kTiles, int kDepth, bool kZeros>
__global__ void __launch_bounds__(32 * kWarps, 16 / kWarps) skinny_kernel(const PackedParams p) {
  using Number = Numbers<kBits>;
  constexpr int kGroups = 4 / kSegments;
  constexpr int kRowsAtOnce = kTiles == 2 && (kBits == 8 || kSegments == 1) ? 1 : kRows;  ///< as registers allow
  let_dependents_start();
  float* const parts = launched_shared<float>();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes, lane = thread % kLanes, g = lane / 4,
            q = lane % 4, m = p.num_x_rows, row_brick = static_cast<int>(blockIdx.x) * kRows;
  using Columns = DealtColumns<kWarps>;
  BricksAhead<kBits, kSegments, kRows, Columns, kDepth * kRows, true, kZeros> ahead(p, Columns(p, warp), nullptr, lane);
  ahead.start(row_brick, p.row_bricks - row_brick);
  Outputs<kRows, kWarps, 8 * kTiles> outputs(p);
  outputs.ask(row_brick, kRows);
  wait_for_dependencies();
  XAhead<kTiles, kWarps> x_ahead(p, warp, g, q);
#pragma unroll
  for (int s = 0; s < 4; ++s) x_ahead.load(s);
  x_ahead.advance();
  outputs.ask_bias_and_residual();

  float total[kRows][kTiles][4] = {};
  for (int first = warp; first < p.column_bricks(); first += kDepth * kWarps) {
    for_each_while<kDepth>([&](auto depth) {
      constexpr int kAt = decltype(depth)::value;
      if (kAt > 0 && first + kAt * kWarps >= p.column_bricks()) return false;
      uint32_t(&x)[kTiles][4][4] = x_ahead.x;
      for_each<kGroups>([&](auto group) {
        constexpr int kGroup = decltype(group)::value;
        // For all rows: sums of magic x 2^-p (c0, c1) and of x (c2, c3).
        float of_x[kTiles][4] = {};
        for_each<kSegments>([&](auto in_group) {
          constexpr int s = kGroup * kSegments + decltype(in_group)::value, p_of_s = Number::position(s);
          const uint32_t power = bits_as<uint32_t>(both(static_cast<float>(1 << p_of_s)));
          const uint32_t a[4] = {kMagic, power, kMagic, power};
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
            if constexpr (p_of_s > 0)
#pragma unroll
              for (int i = 0; i < 4; ++i)
                x[n][s][i] =
                    bits_as<uint32_t>(__hmul2(bits_as<Two>(x[n][s][i]), both(1.f / static_cast<float>(1 << p_of_s))));
#pragma unroll
            for (int four = 0; four < 2; ++four) multiply_add(of_x[n], a, x[n][s][2 * four], x[n][s][2 * four + 1]);
          }
        });
        for_each<kRows / kRowsAtOnce>([&](auto turn) {
          constexpr int kFirst = decltype(turn)::value * kRowsAtOnce, kEnd = kFirst + kRowsAtOnce;
          float2 scale[kRowsAtOnce];
          float part[kRowsAtOnce][Number::kParts][kTiles][4];
#pragma unroll
          for (int r = 0; r < kRowsAtOnce; ++r) {
            scale[r] = pair_of(ahead.scales[kAt * kRows + kFirst + r][kGroup], p.scales_are_half);
            float2 zero{p.zero, p.zero};
            if constexpr (kZeros) {
              const uint32_t zeros = ahead.zeros[kAt * kRows + kFirst + r][kGroup];
              zero = {static_cast<float>(zeros & 0xff), static_cast<float>(zeros >> 8)};
            }
#pragma unroll
            for (int n = 0; n < kTiles; ++n) {
              const float(&s)[4] = of_x[n];
#pragma unroll
              for (int i = 0; i < 2; ++i) {
                part[r][0][n][i] = fmaf(-zero.x, s[2 + i], -s[i]);
                part[r][0][n][2 + i] = fmaf(-zero.y, s[2 + i], -s[i]);
                if constexpr (Number::kParts == 2) part[r][1][n][i] = part[r][1][n][2 + i] = -s[i];
              }
            }
          }
          for_each<kSegments>([&](auto in_group) {
            constexpr int s = kGroup * kSegments + decltype(in_group)::value;
            for_each<2 * Number::kParts>([&](auto index) {
              constexpr int kPart = decltype(index)::value / 2, kFour = decltype(index)::value % 2;
#pragma unroll
              for (int r = 0; r < kRowsAtOnce; ++r) {
                const uint32_t(&words)[2 * kBits] = ahead.words[kAt * kRows + kFirst + r];
                const uint32_t a[4] = {Number::template pair<s, 0, kFour, 0, kPart>(words),
                                       Number::template pair<s, 1, kFour, 0, kPart>(words),
                                       Number::template pair<s, 0, kFour, 1, kPart>(words),
                                       Number::template pair<s, 1, kFour, 1, kPart>(words)};
#pragma unroll
                for (int n = 0; n < kTiles; ++n)
                  multiply_add(part[r][kPart][n], a, x[n][s][2 * kFour], x[n][s][2 * kFour + 1]);
              }
            });
            if constexpr (kEnd == kRows) x_ahead.load(s);
          });
#pragma unroll
          for (int r = 0; r < kRowsAtOnce; ++r)
#pragma unroll
            for (int n = 0; n < kTiles; ++n)
#pragma unroll
              for (int i = 0; i < 4; ++i) {
                float sum = part[r][0][n][i];
                if constexpr (Number::kParts == 2) sum += 16 * part[r][1][n][i];
                total[kFirst + r][n][i] += (i < 2 ? scale[r].x : scale[r].y) * sum;
              }
        });
      });
      for_each<kRows>([&](auto r) { ahead.template load<(kAt + kDepth) * kRows + decltype(r)::value>(); });
      x_ahead.advance();
      return true;
    });
    ahead.advance();
  }
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (const int row = 8 * n + 2 * q + i; row < m)
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          put_sums<kRows, 8 * kTiles>(parts, warp, row, r, g, total[r][n][i], total[r][n][2 + i]);
  __syncthreads();
  outputs.store(parts, [](int) { return 1.f; });
}

template <int kBits, int kSegments, int kRows, int kWarps, int kTiles>
void launch(const PackedParams& p, CUstream_st* stream) {
  constexpr bool kMany = kBits == 8 || kSegments == 1 || kRows * kTiles == 4 || (kBits == 3 && kRows == 2);
  constexpr int kDepth = kMany ? 1 : 2;  // as registers allow
  const auto with = [&](auto zeros) {
    launch_early("packed_decode", skinny_kernel<kBits, kSegments, kRows, kWarps, kTiles, kDepth, zeros>,
                 {.blocks = static_cast<unsigned>((p.row_bricks + kRows - 1) / kRows),
                  .threads = 32 * kWarps,
                  .shared_bytes = static_cast<int>(sizeof(float)) * kWarps * 8 * kTiles * kRows * kBrickRows},
                 stream, p);
  };
  p.zeros ? with(Yes{}) : with(No{});
}

/// Calls f with the index of a tile, one of the first kCount, as a type.
template <int kCount, class Function>
void for_tile(DecodeTile tile, const Function& f) {
  const auto use = [&]<int kAt>(std::integral_constant<int, kAt> index) {
    if (tile != kDecodeTiles[kAt]) return false;
    f(index);
    return true;
  };
  const bool found = [&]<int... kI>(std::integer_sequence<int, kI...>) {
    return (use(std::integral_constant<int, kI>{}) || ...);
  }
  (std::make_integer_sequence<int, kCount>{});
  if (!found) throw std::invalid_argument("packed decode: no such tile");
}

}  // namespace

void packed_skinny_cuda(const DecodeArgs& args, CUstream_st* stream) {
  const PackedParams p = params_of(args);
  const DecodeTile tile = tile_of(args);
  for_bits_and_group(args.w.shape.bits, p.group_shift, [&](auto bits, auto segments) {
    constexpr int kBits = decltype(bits)::value, kSegments = decltype(segments)::value;
    for_tile<num_skinny_tiles(kBits == 8 || kSegments == 1)>(tile, [&](auto index) {
      constexpr DecodeTile kTile = kDecodeTiles[decltype(index)::value];
      p.num_x_rows <= 8 ? launch<kBits, kSegments, kTile.row_bricks, kTile.warps, 1>(p, stream)
                        : launch<kBits, kSegments, kTile.row_bricks, kTile.warps, 2>(p, stream);
    });
  });
}

}  // namespace satin::kernels
