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
// A multiprocessor has one block of sixteen warps, which owns rows of the matrix; a warp has columns of bricks and
// makes the integers of these by itself. Bricks are asked for before the kernel before this one has ended (programmatic
// dependent launch): up to 64 KB into registers, or the first of two stages through shared memory (34 KB at 2 bits),
// where x comes before the second (packed_bricks.cuh). Sums over warps are made in a fixed order.
//
// Time on an H200, one launch after the other, groups of 128 (satin bench --tune FILE --only "rows 1"): us that the
// bytes take at 4.26 TB/s, and measured; in brackets all into registers, of columns that are dealt to the warps.
//                      1 bit          2 bits         3 bits         4 bits          8 bits
//    16,384 x 2,048  1.1 3.2 (3.2)  2.1 3.9 (4.0)  3.1 4.7 (4.8)  4.1 5.4 (5.4)
//     4,096 x 4,096   .6 2.7 (2.6)  1.1 2.9 (2.8)  1.5 3.6 (4.0)  2.0 3.7 (4.0)   4.0  5.1
//     8,192 x 8,192  2.2 5.3 (5.5)  4.2 5.7 (6.7)  6.2 7.6 (8.5)  8.1 9.4 (9.4)  16.0 16.3
//    14,336 x 4,096  1.9 4.7 (4.9)  3.7 5.1 (5.8)  5.4 6.7 (7.6)  7.1 8.5 (8.6)  14.0 14.8
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
// 12.0, as blocks fall two on one); eight warps of twice the registers (14.6); bricks of one column a warp through
// shared memory, by cp.async (as fast) or the copy engine and a warp for it (2,048 x 2,048 2.4 us); x, and the norm's
// weight, through shared memory by the copy engine, whose answers do not queue behind those of the bricks (.2 to .4
// more a launch); integers of one row's next four columns of bricks at once (level to .3 more); columns split over
// clusters (2 to 5 us later); half of the bricks after x (.1 to .4 more); the next kernel's weights brought into the L2
// by its predecessor (a layer 1.5 us more at 1 bit, .6 at 4), or all of a layer's by idle multiprocessors during
// attention: with them there 16,384 x 2,048 takes 4.4 us of 4.4 at 2 bits and 5.1 of 5.5 at 4, so it is not the memory
// that a token waits for; the four products between two attentions in one launch, their bricks in shared memory ahead
// of their x, numbers handed over through the L2 where a word that is no NaN says that it is there (14.6 us instead
// of 12.0, at 64 registers as at 128): a hand-over takes the 1.1 us of a launch, with what is read and added up, and a
// brick's instructions count. They do as an AND is half of one a cycle: sixteen ANDs are 32 of a brick's 65 cycles of a
// scheduler, so that 16,384 x 2,048 at 2 bits is 1.1 us of arithmetic after its x is there. As bits: digits in two's
// complement, whose sums take integer instructions or conversions (.1 to .2 more a launch); more bricks asked for
// ahead (registers do not suffice at 2 bits: .8 more with 12 for 8,192 x 8,192, 2.1 with 16; .3 with 16 at 1 bit), half
// as many (.5 more at 1 bit, level at 2); x of four columns of bricks asked for at once (level to .2 more); few rows as
// bits too (.1 to .5 more).
// Of columns enough for more than one turn a warp waits for x at least as long as for its bricks: what is asked for
// before x, here or by other multiprocessors, delays it. Through shared memory, us for 8,192 x 8,192 at 2 bits: both
// stages before x 5.9, one before it and one after it was asked for 5.3; stages of half as many bricks 5.6, three
// stages level; dealt columns .2 to .4 more. Tried there: the copy engine instead of cp.async (level); the copy engine,
// digits of four columns in registers, and rows one after the other (.9 more); pauses between requests (level to .5
// more); 8-bit codes (.4 to 1.6 more), one row of bricks a block and four columns a warp (.1 to .3 more), five to
// sixteen rows of x (packed_skinny.cu). The next kernel's block beside this one, 64 registers each and blocks without
// rows that stay 1.5 us, so that none falls two on one: in a row of 40 such launches alone 4.2 us instead of 4.6 for
// 8,192 x 8,192 at 1 bit, 2.7 instead of 2.9 for 4,096 x 4,096 at 2 bits; in a token of the 1.2b shape 417 instead
// of 299. A preference for shared memory over L1 (cudaFuncAttributePreferredSharedMemoryCarveout, all of it; half makes
// no difference): one row alone level, a token at 4 bits after 512 others 329 us instead of 335, but after 16,384
// others 569 instead of 528, and sixteen sequences 731 instead of 653: what is on its way to registers lies in the L1.
#pragma once
#include "kernels/cuda/packed_bit_products.cuh"
#include "kernels/cuda/packed_bricks.cuh"
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

/// Neighbours but of 8 bits: 8,192 x 8,192 in 16.2 us, not 16.8.
template <int kBits>
using Columns = std::conditional_t<kBits == 8, DealtColumns<kWarps>, NextColumns<kWarps>>;

/// Bricks that a warp has asked for into registers: 32 registers of words a lane, 64 KB of a multiprocessor.
template <int kBits>
constexpr int kMostSlots = kBits <= 2   ? 8
                           : kBits <= 4 ? 4
                                        : 2;
/// How it reads them.
template <int kBits, int kSegments, int kXRows, int kRows, bool kThroughShared, bool kZeros>
struct Reads {
  using Bricks = BricksAhead<kBits, kSegments, kRows, Columns<kBits>, std::min(kMostSlots<kBits>, 4 * kRows),
                             (kXRows > 1), kZeros>;
};
template <int kBits, int kSegments, int kXRows, int kRows, bool kZeros>
struct Reads<kBits, kSegments, kXRows, kRows, true, kZeros> {
  using Bricks = BricksThroughShared<kBits, kRows, Columns<kBits>, kZeros>;
};

/// kZeros: there may be zero points.
template <int kBits, int kSegments, int kXRows, int kRows, bool kThroughShared, bool kZeros, bool kNormed>
__global__ void __launch_bounds__(kThreads, 1) decode_kernel(const PackedParams p) {
  constexpr bool kOneRow = kXRows == 1;
  using Ahead = typename Reads<kBits, kSegments, kXRows, kRows, kThroughShared, kZeros>::Bricks;
  using Product = Products<kBits, kSegments, kXRows, kRows, kZeros>;
  constexpr int kOutputs = kRows * kBrickRows, kDepth = Ahead::kDepth, kXAhead = kOneRow ? kDepth : 1;
  let_dependents_start();
  const unsigned thread = threadIdx.x;
  const int warp = __shfl_sync(~0u, static_cast<int>(thread / kLanes), 0), lane = static_cast<int>(thread % kLanes),
            g = static_cast<int>(thread % kLanes / 4), q = static_cast<int>(thread % 4), m = kOneRow ? 1 : p.num_x_rows;
  const int row_brick = static_cast<int>(blockIdx.x) * p.row_bricks_a_block,
            rows = min(static_cast<int>(p.row_bricks_a_block), p.row_bricks - row_brick);
  constexpr int kStep = Columns<kBits>::kStep;
  const Columns<kBits> columns(p, warp);
  uint32_t* const bricks = launched_shared<uint32_t>();
  Ahead ahead(p, columns, bricks + warp * Ahead::kSharedWords, lane);
  ahead.start(row_brick, rows);
  Outputs<kRows, kWarps, kXRows> outputs(p);
  outputs.ask(row_brick, min(kRows, rows));

  float* const parts = reinterpret_cast<float*>(bricks + kWarps * Ahead::kSharedWords);
  float* const squares_of = parts + kWarps * kXRows * kOutputs;  // [row of x][warp]
  Product product(p, reinterpret_cast<uint32_t*>(squares_of + kWarps * kXRows) + warp * Product::kSharedWords, lane);

  // x as it lies, of the next kXAhead columns of bricks: asked for where `column` is, a number of them on.
  const int my_column = columns.first * kBrickColumns + 4 * lane;
  const uint32_t* const my_x_from = settled(static_cast<const uint32_t*>(p.x) + my_column / 2u);
  const int end_of_x = min(p.num_columns, columns.end * kBrickColumns);
  uint2 bits[kXAhead][kXRows];
  const auto load_x = [&](int column, int on, uint2(&to)[kXRows]) {
    const bool is_here = column + on * kBrickColumns < end_of_x;
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
      for (int i = 0; i < kXAhead; ++i) load_x(my_column, i * kStep, bits[i]);
  };
  wait_for_dependencies();
  start_x();
  if constexpr (!kNormed) ahead.start_others();
#pragma unroll 1
  for (int first = 0; first < rows; first += kRows) {
    outputs.ask_bias_and_residual();
    int column = my_column;
    float total[kRows][2] = {};  // rows g and g + 8, of lane q's share or of row q of x
    float squares[kXRows] = {};
    for (int brick = columns.first; brick < columns.end; brick += kDepth * kStep) {
      for_each_while<kDepth>([&](auto depth) {
        constexpr int kAt = decltype(depth)::value;
        if (kAt > 0 && brick + kAt * kStep >= columns.end) return false;
        const auto put_rows = [&](auto first_row, auto count) {
          constexpr int kFirst = decltype(first_row)::value, kCount = decltype(count)::value;
          float4 x[kCount];
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            x[i] = {};
            if constexpr (!kNormed)
              x[i] = four_of(bits[kOneRow ? kAt : 0][kFirst + i], p.x_is_half);
            else if (const int at = column + kAt * kStep * kBrickColumns; at < p.num_columns)
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
          if (brick + (kAt + kXAhead) * kStep < columns.end)
            load_x(column, (kAt + kXAhead) * kStep, bits[kOneRow ? kAt : 0]);
        if constexpr (kNormed && kAt == 0)
          if (first == 0 && brick == columns.first) ahead.start_others();  // its x is here only now
        product.load();
        ahead.template take<kAt>(rows - first, [&](auto r, const auto& words, const auto& scales, const auto& zeros) {
          product.add(words, scales, zeros, total[decltype(r)::value]);
        });
        return true;
      });
      ahead.advance();
      column += kDepth * kStep * kBrickColumns;
    }

    if (first + kRows < rows) {
      if constexpr (!Ahead::kGoesOn) ahead.start(row_brick + first + kRows, rows - first - kRows);
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

template <int kBits, int kSegments, int kXRows, int kRows, bool kThroughShared>
void launch_reading(const PackedParams& p, CUstream_st* stream) {
  const unsigned rows = p.row_bricks_a_block;
  const auto with = [&](auto zeros, auto normed) {
    constexpr bool kZeros = decltype(zeros)::kIs;
    using Bricks = typename Reads<kBits, kSegments, kXRows, kRows, kThroughShared, kZeros>::Bricks;
    constexpr int kWords = Bricks::kSharedWords + kXRows * (kRows * kBrickRows + 1) +
                           Products<kBits, kSegments, kXRows, kRows, kZeros>::kSharedWords;
    launch_early("packed_decode", decode_kernel<kBits, kSegments, kXRows, kRows, kThroughShared, kZeros, normed>,
                 {.blocks = (static_cast<unsigned>(p.row_bricks) + rows - 1) / rows,
                  .threads = kThreads,
                  .shared_bytes = 4 * kWarps * kWords},
                 stream, p);
  };
  const auto with_norm = [&](auto normed) {
    if (kXRows > 1 || p.zeros) return with(Yes{}, normed);
    if constexpr (kXRows == 1) with(No{}, normed);
  };
  p.norm_weight ? with_norm(Yes{}) : with_norm(No{});
}

/// Through shared memory where a warp has several columns, of two rows of bricks few, and pairs begin where 16 bytes
/// may be copied. With it 2,048 x 8,192 at 2 bits, two rows and four columns, takes 3.7 us instead of 3.2, and a token
/// of the 1.2b shape, whose other products have one column a warp, 317 instead of 299.
template <int kBits, int kSegments, int kXRows, int kRows>
void launch(const PackedParams& p, CUstream_st* stream) {
  if constexpr (kXRows == 1 && kSegments == 4 && kBits <= 3 && kRows >= 2) {
    const int columns = (p.column_bricks() + kWarps - 1) / kWarps;
    const bool is_aligned = (reinterpret_cast<uintptr_t>(p.scales) | reinterpret_cast<uintptr_t>(p.zeros)) % 16 == 0;
    if (is_aligned && columns >= 2 && (kRows > 2 || columns < 4))
      return launch_reading<kBits, kSegments, kXRows, kRows, true>(p, stream);
  }
  launch_reading<kBits, kSegments, kXRows, kRows, false>(p, stream);
}

/// With a tile's row bricks a block.
template <int kXRows>
void launch_for(const DecodeArgs& args, CUstream_st* stream) {
  PackedParams p = params_of(args);
  const int rows = tile_of(args).row_bricks;
  p.row_bricks_a_block = static_cast<uint16_t>(rows);
  for_bits_and_group(args.w.shape.bits, p.group_shift, [&](auto bits, auto segments) {
    constexpr int kBits = decltype(bits)::value, kSegments = decltype(segments)::value;
    if (rows == 1)
      launch<kBits, kSegments, kXRows, 1>(p, stream);
    else if (rows == 2)
      launch<kBits, kSegments, kXRows, 2>(p, stream);
    else if (rows <= 4)
      launch<kBits, kSegments, kXRows, 4>(p, stream);
    else
      launch<kBits, kSegments, kXRows, 8>(p, stream);
  });
}

}  // namespace
}  // namespace satin::kernels
