// One to four rows of x times a packed weight, as fast as its bytes arrive: packed_decode.cu has it for one row,
// packed_few.cu for two to four.
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
// Time on an H200, one launch after the other, groups of 128: us that the bytes take at 4.26 TB/s, and measured; before
// this shape of the kernel, in brackets.
//                      1 bit           2 bits          3 bits           4 bits            8 bits
//     2,048 x 2,048   .1  1.9         .3  1.9 (2.5)   .4  2.1          .5  2.0
//    16,384 x 2,048  1.1  3.6        2.1  4.3 (5.3)  3.1  5.2         4.1  5.1
//     4,096 x 4,096   .6  2.8 (3.7)  1.1  3.1 (4.2)  1.5  3.9 (5.1)   2.0  3.9 (5.1)    4.0  5.2 (6.9)
//     8,192 x 8,192  2.2  5.9 (6.5)  4.2  6.9 (8.4)  6.2  9.1 (11.0)  8.1  9.3 (11.6)  16.0 16.6 (18.6)
//    14,336 x 4,096  1.9  5.5 (6.4)  3.7  6.2 (7.6)  5.4  8.3 (9.7)   7.1  8.2 (10.6)  14.0 14.6 (16.9)
// An empty kernel in such a row takes .5 us, one that reads 4 KB of x and adds it up 1.1. What made the difference:
// - Loads through the read-only path (ld.global.nc) are moved behind griddepcontrol.wait by ptxas, so that nothing was
//   asked for early: .3 to 1.1 us.
// - Four warps share an instruction a cycle: an instruction that all warps carry out once costs 4 cycles, and a block
//   of 2,048 x 2,048 takes 2,400. Integers of x without a barrier and without divisions, addresses as one multiply-add,
//   kernels of their own for zero points and norms: 1,000 instructions are 450. A brick's are about 45, 16 of them
//   ANDs.
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
// scheduler, so that 16,384 x 2,048 at 2 bits is 1.1 us of arithmetic after its x is there.
#pragma once
#include "kernels/cuda/packed_integers.cuh"
#include "kernels/cuda/packed_outputs.cuh"

namespace satin::kernels {
namespace {

constexpr int kWarps = 16, kThreads = kWarps * kLanes;

/// kSegments: of a brick's 32 columns that share a scale (4: a brick or more). kXRows: rows of x, or the most of them.
/// kRows: row bricks at a time. kSlots: bricks that a warp has asked for. kZeros: there may be zero points.
template <int kBits, int kSegments, int kXRows, int kRows, int kSlots, bool kZeros, bool kNormed>
__global__ void __launch_bounds__(kThreads, 1) decode_kernel(const PackedParams p) {
  using Code = Codes<kBits>;
  constexpr bool kOneRow = kXRows == 1;
  constexpr int kTogether = kOneRow ? 4 : kSegments;  ///< segments whose products are one sum
  using Ahead = BricksAhead<kBits, kSegments, kRows, kWarps, kSlots, !kOneRow, kZeros>;
  constexpr int kSums = 4 / kTogether, kOutputs = kRows * kBrickRows, kDepth = Ahead::kDepth,
                kXAhead = kOneRow ? kDepth : 1;
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
  uint32_t* const xs = reinterpret_cast<uint32_t*>(squares_of + kWarps * kXRows) + warp * kXRows * kXWords;

  // B operand of a segment. Column g of one row is the high (even g) or the low bytes of segment g / 2, and of the
  // others zeros: sums of a brick's segments are the product's columns. Else it is those bytes of row g / 2, and zeros
  // where there is no such row.
  const uint32_t* const zeros_of_x = xs + kZerosAt + 2 * q;
  const uint32_t* const my_x = xs + (kOneRow ? 8 * (g / 2) : min(g / 2, m - 1) * kXWords) + g % 2 * kXStride + 2 * q;
  constexpr bool kKeeps = kRows <= 4;  // else there are too few registers
  const auto kept = [](const SharedAt& at) { return kKeeps ? at.in_register() : at; };
  const auto b_at = [&](int s) {
    const bool is_here = kOneRow ? g / 2 == s : g / 2 < m;
    const SharedAt at(is_here ? my_x + (kOneRow ? 0 : 8 * s) : zeros_of_x);
    return kept(at);
  };
  const SharedAt b_from[4] = {b_at(0), b_at(1), b_at(2), b_at(3)}, whole_from = kept(SharedAt(my_x)),
                 x_to = kept(SharedAt(xs + lane));
  constexpr uint32_t kOne = 0x01010101, ones[4] = {kOne, kOne, kOne, kOne};
  const int magic = __float_as_int(kMagic), none[4] = {magic, magic, magic, magic};
  // One row's sums are 2^p those of codes, p of segment q.
  int place = 0;
  if constexpr (kOneRow)
#pragma unroll
    for (int s = 1; s < 4; ++s) place = q == s ? Code::position(s) : place;
  if constexpr (kKeeps) place = in_register(place);
  const float power = __int_as_float((127 + place) << 23), unit = __int_as_float((127 - place) << 23);
  if (lane < 8) xs[kZerosAt + lane] = 0;

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
    float total[kRows][2] = {};  // rows g and g + 8, of segment q or of row q of x
    float squares[kXRows] = {};
    for (int brick = warp; brick < column_bricks; brick += kDepth * kWarps) {
      for_each_while<kDepth>([&](auto depth) {
        constexpr int kAt = decltype(depth)::value;
        if (kAt > 0 && brick + kAt * kWarps >= column_bricks) return false;
        float x_factor = 0, minus_x[kSums];
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
          float most[kCount];
          put_integers(x, x_to.plus(kFirst * kXWords), most);
#pragma unroll
          for (int i = 0; i < kCount; ++i)
            if (kOneRow || kFirst + i == q) x_factor = most[i] * (1.f / kMostX) * unit;
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
        uint2 b[4];
#pragma unroll
        for (int s = 0; s < 4; ++s) b_from[s].load(b[s]);
        if constexpr (kOneRow) {
          uint2 whole;
          whole_from.load(whole);
          int sum[4];
          multiply_add(sum, ones, whole, none);
          minus_x[0] = sum_of_pairs(sum[0], sum[1]) * -power;
        } else {
#pragma unroll
          for (int j = 0; j < kSums; ++j) {
            int sum[4];
            multiply_add(sum, ones, b[j * kTogether], none);
#pragma unroll
            for (int s = j * kTogether + 1; s < (j + 1) * kTogether; ++s) multiply_add(sum, ones, b[s], sum);
            minus_x[j] = -sum_of_pairs(sum[0], sum[1]);
          }
        }
        for_each<kRows>([&](auto index) {
          constexpr int r = decltype(index)::value, kItem = kAt * kRows + r, kSlot = kItem % kSlots;
          const uint32_t(&words)[2 * kBits] = ahead.words[kSlot];
          for_each<kSums>([&](auto sum_index) {
            constexpr int kSum = decltype(sum_index)::value;
            float2 zero{p.zero, p.zero};
            if (kZeros && (kOneRow || p.zeros)) {
              const uint32_t zeros = ahead.zeros[kSlot][kSum];
              zero = {static_cast<float>(zeros & 0xff), static_cast<float>(zeros >> 8)};
            }
            const float2 scale = pair_of(ahead.scales[kSlot][kSum], p.scales_are_half);
            int sum[4];
            for_each<kTogether>([&](auto in_sum) {
              constexpr int kFirst = kSum * kTogether, s = kFirst + decltype(in_sum)::value;
              uint32_t a[4];
              Code::template operand<s, kOneRow>(words, a);
              if constexpr (s == kFirst)
                multiply_add(sum, a, b[s], none);
              else
                multiply_add(sum, a, b[s], sum);
            });
            float(&to)[2] = total[r];
            to[0] = fmaf(scale.x * x_factor, fmaf(zero.x, minus_x[kSum], sum_of_pairs(sum[0], sum[1])), to[0]);
            to[1] = fmaf(scale.y * x_factor, fmaf(zero.y, minus_x[kSum], sum_of_pairs(sum[2], sum[3])), to[1]);
          });
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
  constexpr int kBytes = 4 * kWarps * kXRows * (kRows * kBrickRows + 1 + kXWords);
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
