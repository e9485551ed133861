// One to four rows of x times a packed weight, as fast as its bytes arrive: packed_decode.cu has it for one row,
// packed_few.cu for two to four.
//
// Codes of one row and up to three bits, in groups of 128 or more, are multiplied bit by bit, without an instruction
// that takes them apart (packed_bit_products.cuh), where a block has rows enough to pay for x. All others are integers
// (packed_integers.cuh).
//
// Codes are 8-bit integers as they lie: one AND gives four of them, at bit p of each byte, and mma.m16n8k32 multiplies
// them with x as integers. x is made 16-bit integers, a scale for 128 columns, and these two bytes each, which are two
// columns of the product: 256 high + low. Nothing is rounded before a group's scale. A zero point takes off
// zero * sum x; a product with ones is that sum. Sums begin at kMagic's bits, so that they are floats as they are.
//
// One row of x takes two of the product's eight columns, and a brick's four segments the others: B of segment s is
// zeros but for columns 2 s and 2 s + 1, so four products into one sum leave each segment's in columns, that is in
// lanes, of its own. A lane then has one scale and one zero point a brick, of its segment and rows, whatever the group,
// and sums of lanes are brought together once at the end. Two to four rows fill the columns.
//
// A multiprocessor has one block of sixteen warps, which owns rows of the matrix; columns of bricks are dealt to its
// warps, and a warp makes the integers of its columns by itself. 64 KB of weights and their scales are asked for before
// the kernel before this one has ended (programmatic dependent launch). Sums over warps are made in a fixed order.
//
// Time on an H200, one launch after the other, groups of 128 (satin bench --tune FILE --only "rows 1"): us that the
// bytes take at 4.26 TB/s, and measured; with integers alone, in brackets (measured earlier).
//                      1 bit          2 bits         3 bits         4 bits      8 bits
//    16,384 x 2,048  1.1 3.2 (3.6)  2.1 4.0 (4.3)  3.1 4.8 (5.2)   4.1 5.4
//     4,096 x 4,096   .6 2.6 (2.8)  1.1 2.8 (3.1)  1.5 4.0         2.0 4.0    4.0  5.1
//     8,192 x 8,192  2.2 5.5 (5.9)  4.2 6.7 (6.9)  6.2 8.5 (9.1)   8.1 9.4   16.0 16.3
//    14,336 x 4,096  1.9 4.9 (5.5)  3.7 5.8 (6.2)  5.4 7.6 (8.3)   7.1 8.6   14.0 14.8
// An empty kernel in such a row takes .5 us, one that reads 4 KB of x and adds it up 1.1. What made the difference:
// - Loads through the read-only path (ld.global.nc) are moved behind griddepcontrol.wait by ptxas, so that nothing was
//   asked for early: .3 to 1.1 us.
// - Four warps share an instruction a cycle: an instruction that all warps carry out once costs 4 cycles, and a block
//   of 2,048 x 2,048 takes 2,400. Integers of x without a barrier and without divisions, addresses as one multiply-add,
//   kernels of their own for zero points and norms: 1,000 instructions are 450. A brick's are about 45, 16 of them
//   ANDs; as bits 31, with no AND, where x of a brick's columns takes 100 instead of 70. A token of the 1.2b shape
//   takes 280, 300 and 329 us at 1, 2 and 3 bits, not 291, 309 and 340.
// - Arguments come 64 bytes at a time, about 250 cycles each: what the first loads take lies in one such line.
// - More than one group of rows a block costs 1.3 us a group.
// - Integers of two to four rows are made at the same time: 5 % of a token of four sequences.
// - A thread asks for its result's residual, bias and arguments before the sums are there (packed_outputs.cuh): at the
//   end these were 600 of 3,000 cycles. A token at 4 bits 333 us, not 340.
// Tried: two blocks a multiprocessor, or the next kernel's beside it (64 registers: a layer's products 14.3 us, not
// 12.0, as blocks fall two on one); eight warps of twice the registers (14.6); bricks through shared memory, by
// cp.async (as fast) or the copy engine and a warp for it (2,048 x 2,048 2.4 us); x, and the norm's weight, through
// shared memory by the copy engine, whose answers do not queue behind those of the bricks (.2 to .4 more a launch);
// integers of one row's next four columns of bricks at once (level to .3 more); columns split over clusters (2 to 5 us
// later); half of the bricks after x (.1 to .4 more); the next kernel's weights brought into the L2 by its predecessor
// (a layer 1.5 us more at 1 bit, .6 at 4), or all of a layer's by idle multiprocessors during attention: with them
// there 16,384 x 2,048 takes 4.4 us of 4.4 at 2 bits and 5.1 of 5.5 at 4, so it is not the memory that a token waits
// for; the four products between two attentions in one launch, their bricks in shared memory ahead of their x, numbers
// handed over through the L2 where a word that is no NaN says that it is there (14.6 us instead of 12.0, at 64
// registers as at 128): a hand-over takes the 1.1 us of a launch, with what is read and added up, and a brick's
// instructions count. They do as an AND is half of one a cycle: sixteen ANDs are 32 of a brick's 65 cycles of a
// scheduler, so that 16,384 x 2,048 at 2 bits is 1.1 us of arithmetic after its x is there. As bits: digits in two's
// complement, whose sums take integer instructions or conversions (.1 to .2 more a launch); more bricks asked for
// ahead (registers do not suffice at 2 bits: .8 more with 12 for 8,192 x 8,192, 2.1 with 16; .3 with 16 at 1 bit), half
// as many (.5 more at 1 bit, level at 2); x of four columns of bricks asked for at once (level to .2 more); few rows as
// bits too (.1 to .5 more). What is left for 8,192 x 8,192 at 2 bits, in cycles of some 12,600 from one launch to the
// next (clocks of a block, a program that is not kept): 3,000 without a load on its way, from a block's last bricks
// over its sums to the next block's first requests, and some 1,000 before x.
#pragma once
#include "kernels/cuda/packed_bit_products.cuh"
#include "kernels/cuda/packed_integers.cuh"
#include "kernels/cuda/packed_outputs.cuh"

namespace satin::kernels {
namespace {

constexpr int kWarps = 16, kThreads = kWarps * kLanes;

/// How a block multiplies. kSegments: of a brick's 32 columns that share a scale (4: a brick or more). kXRows: rows of
/// x, or the most of them. kRows: row bricks at a time. x takes longer to be digits than integers: some rows pay for
/// it.
template <int kBits, int kSegments, int kXRows, int kRows, bool kZeros>
using Products =
    std::conditional_t<kXRows == 1 && kSegments == 4 && kBits <= 3 && kRows >= (kBits == 1 ? 2 : 4),
                       BitProducts<kBits, kZeros>, IntegerProducts<kBits, kSegments, kXRows, kRows <= 4, kZeros>>;

/// kSlots: bricks that a warp has asked for. kZeros: there may be zero points.
template <int kBits, int kSegments, int kXRows, int kRows, int kSlots, bool kZeros, bool kNormed>
__global__ void __launch_bounds__(kThreads, 1) decode_kernel(const PackedParams p) {
  constexpr bool kOneRow = kXRows == 1;
  using Ahead = BricksAhead<kBits, kSegments, kRows, kWarps, kSlots, !kOneRow, kZeros>;
  using Product = Products<kBits, kSegments, kXRows, kRows, kZeros>;
  constexpr int kOutputs = kRows * kBrickRows, kDepth = Ahead::kDepth, kXAhead = kOneRow ? kDepth : 1;
  let_dependents_start();
  const unsigned thread = threadIdx.x;
  const int warp = __shfl_sync(~0u, static_cast<int>(thread / kLanes), 0), lane = static_cast<int>(thread % kLanes),
            g = static_cast<int>(thread % kLanes / 4), q = static_cast<int>(thread % 4), m = kOneRow ? 1 : p.num_x_rows;
  const int row_brick = static_cast<int>(blockIdx.x) * p.row_bricks_a_block,
            rows = min(static_cast<int>(p.row_bricks_a_block), p.row_bricks - row_brick);
  const int column_bricks = p.column_bricks();
  Ahead ahead(p, warp, lane);
  ahead.start(row_brick, min(kRows, rows));
  Outputs<kRows, kWarps, kXRows> outputs(p);
  outputs.ask(row_brick, min(kRows, rows));

  float* const parts = launched_shared<float>();
  float* const squares_of = parts + kWarps * kXRows * kOutputs;  // [row of x][warp]
  Product product(p, reinterpret_cast<uint32_t*>(squares_of + kWarps * kXRows) + warp * Product::kSharedWords, lane);

  // x as it lies, of the next kXAhead columns of bricks: asked for where `column` is, a number of them on.
  const int my_column = warp * kBrickColumns + 4 * lane;
  const uint32_t* const my_x_from = settled(static_cast<const uint32_t*>(p.x) + my_column / 2u);
  uint2 bits[kXAhead][kXRows];
  const auto load_x = [&](int column, int on, uint2(&to)[kXRows]) {
    const bool is_here = column + on * kBrickColumns < p.num_columns;
    const uint32_t* from = my_x_from + static_cast<unsigned>(column - my_column) / 2 + on * (kBrickColumns / 2);
#pragma unroll
    for (int row = 0; row < kXRows; ++row, from += p.num_columns / 2) {
      to[row] = {};
      load_if(is_here && row < m, to[row].x, to[row].y, from);
    }
  };
  const auto start_x = [&] {
    if constexpr (!kNormed)
#pragma unroll
      for (int i = 0; i < kXAhead; ++i) load_x(my_column, i * kWarps, bits[i]);
  };
  wait_for_dependencies();
  start_x();
#pragma unroll 1
  for (int first = 0; first < rows; first += kRows) {
    outputs.ask_bias_and_residual();
    int column = my_column;
    float total[kRows][2] = {};  // rows g and g + 8, of lane q's share or of row q of x
    float squares[kXRows] = {};
    for (int brick = warp; brick < column_bricks; brick += kDepth * kWarps) {
      for_each_while<kDepth>([&](auto depth) {
        constexpr int kAt = decltype(depth)::value;
        if (kAt > 0 && brick + kAt * kWarps >= column_bricks) return false;
        const auto put_rows = [&](auto first_row, auto count) {
          constexpr int kFirst = decltype(first_row)::value, kCount = decltype(count)::value;
          float4 x[kCount];
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            x[i] = {};
            if constexpr (!kNormed)
              x[i] = four_of(bits[kOneRow ? kAt : 0][kFirst + i], p.x_is_half);
            else if (const int at = column + kAt * kWarps * kBrickColumns; at < p.num_columns)
              x[i] = normed_four(p, kFirst + i, at, squares[kFirst + i]);
          }
          product.template put<kFirst>(x);
        };
        __syncwarp();
        using std::integral_constant;
        if constexpr (kOneRow) {
          put_rows(integral_constant<int, 0>{}, integral_constant<int, 1>{});
        } else if (m == kXRows) {
          put_rows(integral_constant<int, 0>{}, integral_constant<int, kXRows>{});
        } else {  // two or three
          put_rows(integral_constant<int, 0>{}, integral_constant<int, 2>{});
          if (m == 3) put_rows(integral_constant<int, 2>{}, integral_constant<int, 1>{});
        }
        __syncwarp();
        if constexpr (!kNormed)
          if (brick + (kAt + kXAhead) * kWarps < column_bricks)
            load_x(column, (kAt + kXAhead) * kWarps, bits[kOneRow ? kAt : 0]);
        product.load();
        for_each<kRows>([&](auto index) {
          constexpr int r = decltype(index)::value, kItem = kAt * kRows + r, kSlot = kItem % kSlots;
          product.add(ahead.words[kSlot], ahead.scales[kSlot], ahead.zeros[kSlot], total[r]);
          // Two at a time, for the branch. Those of this column are there whatever the columns.
          constexpr int kNext = kItem + kSlots;
          if constexpr (kRows == 1 || kNext / kRows == kAt) {
            if (kNext / kRows == kAt || ahead.template has<kNext>()) ahead.template load<kNext>();
          } else if constexpr (r % 2 == 1) {
            if (ahead.template has<kNext>()) ahead.template load<kNext - 1>(), ahead.template load<kNext>();
          }
        });
        return true;
      });
      ahead.advance();
      column += kDepth * kWarps * kBrickColumns;
    }

    if (first + kRows < rows) {
      ahead.start(row_brick + first + kRows, min(kRows, rows - first - kRows));
      start_x();
    }
    if (first > 0) __syncthreads();  // the sums before have been read
    if constexpr (kNormed)
#pragma unroll
      for (int i = 0; i < kXRows; ++i) {
#pragma unroll
        for (int distance = kLanes / 2; distance > 0; distance /= 2)
          squares[i] += __shfl_xor_sync(~0u, squares[i], distance);
        if (lane == 0) squares_of[i * kWarps + warp] = squares[i];
      }
    if constexpr (kOneRow) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {  // lanes q and q ^ 1 each add up one of the two rows
        float& sum = total[r][0];
        const float other = q % 2 ? sum : total[r][1];
        sum = (q % 2 ? total[r][1] : sum) + __shfl_xor_sync(~0u, other, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
      }
      if (q < 2)
#pragma unroll
        for (int r = 0; r < kRows; ++r) parts[warp * kOutputs + r * kBrickRows + g + 8 * q] = total[r][0];
    } else if (q < m) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) put_sums<kRows, kXRows>(parts, warp, q, r, g, total[r][0], total[r][1]);
    }
    __syncthreads();
    outputs.store(parts, [&](int x_row) {
      if (!kNormed) return 1.f;
      const float* const squares = squares_of + x_row * kWarps;
      return rsqrtf(fmaf(sum_of<kWarps>([&](int w) { return squares[w]; }), p.inverse_columns, p.norm_eps));
    });
    if (first + kRows < rows) outputs.ask(row_brick + first + kRows, min(kRows, rows - first - kRows));
  }
}

/// Bricks that a warp has asked for: 32 registers of words a lane, 64 KB of a multiprocessor.
template <int kBits>
constexpr int kMostSlots = kBits <= 2   ? 8
                           : kBits <= 4 ? 4
                                        : 2;

template <int kBits, int kSegments, int kXRows, int kRows>
void launch(PackedParams p, int rows, CUstream_st* stream) {
  p.row_bricks_a_block = static_cast<uint16_t>(rows);
  constexpr int kSlots = std::min(kMostSlots<kBits>, 4 * kRows);
  constexpr int kBytes =
      4 * kWarps * (kXRows * (kRows * kBrickRows + 1) + Products<kBits, kSegments, kXRows, kRows, true>::kSharedWords);
  const auto with = [&](auto zeros, auto normed) {
    launch_early("packed_decode", decode_kernel<kBits, kSegments, kXRows, kRows, kSlots, zeros, normed>,
                 {.blocks = static_cast<unsigned>((p.row_bricks + rows - 1) / rows),
                  .threads = kThreads,
                  .shared_bytes = kBytes},
                 stream, p);
  };
  const auto with_norm = [&](auto normed) {
    if (kXRows > 1 || p.zeros) return with(Yes{}, normed);
    if constexpr (kXRows == 1) with(No{}, normed);
  };
  p.norm_weight ? with_norm(Yes{}) : with_norm(No{});
}

/// With a tile's row bricks a block.
template <int kXRows>
void launch_for(const DecodeArgs& args, CUstream_st* stream) {
  const PackedParams p = params_of(args);
  const int rows = tile_of(args).row_bricks;
  for_bits_and_group(args.w.shape.bits, p.group_shift, [&](auto bits, auto segments) {
    constexpr int kBits = decltype(bits)::value, kSegments = decltype(segments)::value;
    if (rows == 1)
      launch<kBits, kSegments, kXRows, 1>(p, rows, stream);
    else if (rows == 2)
      launch<kBits, kSegments, kXRows, 2>(p, rows, stream);
    else if (rows <= 4)
      launch<kBits, kSegments, kXRows, 4>(p, rows, stream);
    else
      launch<kBits, kSegments, kXRows, 8>(p, rows, stream);
  });
}

}  // namespace
}  // namespace satin::kernels
