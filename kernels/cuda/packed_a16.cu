// Many rows of bfloat16 x times packed weights on Hopper's tensor cores.
//
// Y^T = W X^T, as packed_a8.cu: weights go packed to shared memory and become the products' operand A in registers, and
// the tensor cores read x alone from there, 64 columns a slot as the copy engine swizzles them. A warpgroup has 64 rows
// and kTokens columns of Y^T in fp32; a warp's 16 rows are one row of bricks.
//
// Two blocks of a cluster may share a tile's columns where tiles are fewer than multiprocessors. What is stored leaves
// by the copy engine while the next tile is multiplied.
//
// Predicted: 2 M N K operations at about 790 TFLOP/s (8192^3 in bfloat16 at best); of a column of bricks, 2,048 cycles
// of products for 256 tokens stand over less than 400 instructions a warp, two warps a scheduler. The dense product
// after dequantizing has the same floor, and writes and reads the weight before.
// Measured (H200, groups of 64 with zero points): M = 4096 on 8,192 x 8,192, 1 to 4 bits 736 to 853 us, dense 814,
// dequantized first 841 to 910; M = 64 25 to 29 us, dense 38, first 111 to 114. A column of bricks takes 1.15 us for
// 256 tokens, as predicted, and .49 to .77 us for 64 and 128, where products would take .15 to .58: a warp's chain of
// making weights is waited for. More bits are slower at the same count of instructions, and so is the dense product of
// their values: numbers that change more bits take more power. Four blocks a tile took longer than two (33 us against
// 27 for 256 tokens on 4,096 x 4,096), as if 32 clusters of four did not run at the same time.
#include <algorithm>
#include <iterator>
#include <limits>
#include <string>
#include <utility>

#include "kernels/cuda/packed_a16_device.cuh"
#include "kernels/packed_a16.h"

namespace satin::kernels {
namespace {

using namespace a16;

/// Whether a weight's zero is part of its lines.
bool has_line_zero(const PackedMatrix& w) { return w.shape.bits < 8 && !w.zeros && w.zero <= kMostLineZero; }

template <class S>
void launch(const PackedA16Args& args, int splits, CUstream_st* stream) {
  const PackedShape& shape = args.w.shape;
  A16Params p{};
  p.num_tokens = static_cast<int>(args.num_rows);
  p.num_rows = static_cast<int>(shape.num_rows);
  p.column_bricks = static_cast<int>(shape.column_bricks());
  while ((int64_t{32} << p.group_shift) < shape.group_size) ++p.group_shift;
  if (shape.num_groups() == 1) p.group_shift = 30;
  p.brick_groups = p.group_shift == 0 ? 4 : p.group_shift == 1 ? 2 : 1;
  p.x = map_of(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, args.x, {shape.num_columns, args.num_rows},
               {kSlotColumns, S::kTokens}, true);
  // Items of 8 bytes: a box has at most 256.
  p.words = map_of(CU_TENSOR_MAP_DATA_TYPE_INT64, 8, args.w.words,
                   {shape.column_bricks() * shape.brick_words() / 2, shape.row_bricks()},
                   {S::kBrickWords / 2, S::kBricks}, false);
  const Box pairs{shape.num_groups() * 8, shape.row_bricks()}, box{p.brick_groups * 8, S::kBricks};
  p.scales = map_of(CU_TENSOR_MAP_DATA_TYPE_UINT32, 4, args.w.scales, pairs, box, false);
  p.has_zeros = args.w.zeros != nullptr;
  if (p.has_zeros) p.zeros = map_of(CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, args.w.zeros, pairs, box, false);
  p.zero = static_cast<uint32_t>(args.w.zero);
  for (int s = 0; s < 4; ++s) p.lines[s] = level_line<S::kBits>(s, args.w.step, S::kZeros ? 0 : args.w.zero);
  p.y = static_cast<uint16_t*>(args.y);
  p.copies_out = S::kCopiesOut && p.num_rows % 8 == 0 && reinterpret_cast<uintptr_t>(args.y) % 16 == 0;
  if (p.copies_out)
    p.outputs =
        map_of(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, args.y, {shape.num_rows, args.num_rows}, {64, S::kTokens}, true);
  p.bias = static_cast<const uint16_t*>(args.bias);
  p.row_tiles = (p.num_rows + S::kRows - 1) / S::kRows;
  p.token_tiles = (p.num_tokens + S::kTokens - 1) / S::kTokens;
  p.splits = splits;
  const auto kernel = a16_kernel<S>;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes));
  const int tiles = p.row_tiles * p.token_tiles;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(splits), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = {static_cast<unsigned>(splits > 1 ? tiles * splits : std::min(tiles, num_multiprocessors())), 1, 1};
  config.blockDim = {S::kThreads, 1, 1};
  config.dynamicSmemBytes = S::kBytes;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = splits > 1 ? 1 : 0;
  require(cudaLaunchKernelEx(&config, kernel, p));
}

/// Nanoseconds of a tile for a column of bricks (2 bits, H200): its products for 256 tokens, for fewer the chain of
/// making weights. What a round of tiles and adding up take beside.
constexpr int kBrickNs[] = {1150, 770, 640, 490}, kRoundNs = 2600, kAddingUpNs = 1500;

/// The fastest tile by these.
A16Tile tile_by_rule(const PackedA16Args& args) {
  const int64_t processors = num_multiprocessors(), bricks = args.w.shape.column_bricks();
  A16Tile best;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (size_t i = 0; i < std::size(kA16Tiles); ++i)
    for (int splits = 1; splits <= 2; ++splits) {
      A16Tile tile = kA16Tiles[i];
      tile.splits = splits;
      const int64_t tiles =
          (args.w.shape.num_rows + tile.rows - 1) / tile.rows * ((args.num_rows + tile.tokens - 1) / tile.tokens);
      if (splits > 1 && (tiles * splits > processors || bricks < 8)) continue;
      const int64_t rounds = (tiles + processors - 1) / processors,
                    ns = rounds * ((bricks + splits - 1) / splits * kBrickNs[i] + kRoundNs) +
                         (splits > 1 ? kAddingUpNs + tile.rows * tile.tokens / 10 : 0);
      if (ns < least) best = tile, least = ns;
    }
  return best;
}

template <int kBits, bool kZeros>
void launch_tile(const PackedA16Args& args, CUstream_st* stream) {
  const A16Tile tile = args.tile == A16Tile{} ? tile_by_rule(args) : args.tile;
  if (tile.splits < 1 || tile.splits > 2 || tile.splits > args.w.shape.column_bricks())
    throw std::invalid_argument("packed_a16: " + std::to_string(tile.splits) + " splits");
  const auto use = [&]<int kAt>(std::integral_constant<int, kAt>) {
    constexpr A16Tile kTile = kA16Tiles[kAt];
    const bool is_this = tile.rows == kTile.rows && tile.tokens == kTile.tokens;
    if (is_this) launch<Shape<kBits, kZeros, kTile.tokens, kTile.rows / 64>>(args, tile.splits, stream);
    return is_this;
  };
  const bool found = [&]<int... kI>(std::integer_sequence<int, kI...>) {
    return (use(std::integral_constant<int, kI>{}) || ...);
  }
  (std::make_integer_sequence<int, static_cast<int>(std::size(kA16Tiles))>{});
  if (!found) throw std::invalid_argument("packed_a16: no such tile");
}

}  // namespace

void packed_a16_cuda(const PackedA16Args& args, CUstream_st* stream) {
  check_a16(args.w, args.num_rows);
  if (args.num_rows == 0) return;
  for_bits(args.w.shape.bits, [&](auto bits) {
    constexpr int kBits = decltype(bits)::value;
    if constexpr (kBits < 8)
      if (has_line_zero(args.w)) return launch_tile<kBits, false>(args, stream);
    launch_tile<kBits, true>(args, stream);
  });
}

}  // namespace satin::kernels
