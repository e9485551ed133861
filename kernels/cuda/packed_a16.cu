// Many rows of bfloat16 x times packed weights on Hopper's tensor cores.
//
// Y^T = W X^T, as packed_a8.cu: weights go packed to shared memory and become the products' operand A in registers, and
// the tensor cores read x alone from there, 64 columns a slot as the copy engine swizzles them. A warpgroup has 64 rows
// and kTokens columns of Y^T in fp32; a warp's 16 rows are one row of bricks.
//
// Floor: 2 M N K operations; 8192^3 in bfloat16 runs at about 790 TFLOP/s at best. Predicted near it for many tokens:
// of a brick of columns, 2,048 cycles of products stand over less than 400 instructions a warp, two warps a scheduler,
// for 256 tokens (1,024 for 128); what is left are a tile's first loads and its store, a few percent of long rows. The
// dense product after dequantizing has the same floor, and writes and reads the weight before.
#include <algorithm>
#include <iterator>
#include <utility>

#include "kernels/cuda/packed_a16_device.cuh"
#include "kernels/packed_a16.h"

namespace satin::kernels {
namespace {

using namespace a16;

/// Whether a weight's zero is part of its lines.
bool has_line_zero(const PackedMatrix& w) { return w.shape.bits < 8 && !w.zeros && w.zero <= kMostLineZero; }

template <class S>
void launch(const PackedA16Args& args, CUstream_st* stream) {
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
  p.bias = static_cast<const uint16_t*>(args.bias);
  p.row_tiles = (p.num_rows + S::kRows - 1) / S::kRows;
  p.token_tiles = (p.num_tokens + S::kTokens - 1) / S::kTokens;
  const auto kernel = a16_kernel<S>;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes));
  const int blocks = std::min(p.row_tiles * p.token_tiles, num_multiprocessors());
  kernel<<<blocks, S::kThreads, S::kBytes, stream>>>(p);
  require(cudaGetLastError());
}

/// The tile of the fewest cycles for a column of bricks. A multiprocessor has tiles one after the other, each with the
/// cycles of its products, or of its instructions where tokens are few, and some that neither hides.
A16Tile tile_by_rule(const PackedA16Args& args) {
  constexpr int kOfInstructions = 350, kUnhidden = 128;
  const int64_t processors = num_multiprocessors();
  const auto cycles = [&](const A16Tile& tile) {
    const int64_t tiles =
        (args.w.shape.num_rows + tile.rows - 1) / tile.rows * ((args.num_rows + tile.tokens - 1) / tile.tokens);
    return (tiles + processors - 1) / processors *
           (std::max(4 * tile.tokens, kOfInstructions) * (tile.rows / 64) + kUnhidden);
  };
  return *std::min_element(std::begin(kA16Tiles), std::end(kA16Tiles),
                           [&](const A16Tile& a, const A16Tile& b) { return cycles(a) < cycles(b); });
}

template <int kBits, bool kZeros>
void launch_tile(const PackedA16Args& args, CUstream_st* stream) {
  const A16Tile tile = args.tile == A16Tile{} ? tile_by_rule(args) : args.tile;
  const auto use = [&]<int kAt>(std::integral_constant<int, kAt>) {
    constexpr A16Tile kTile = kA16Tiles[kAt];
    if (tile == kTile) launch<Shape<kBits, kZeros, kTile.tokens, kTile.rows / 64>>(args, stream);
    return tile == kTile;
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
