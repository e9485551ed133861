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

/// Cycles a column of bricks: tiles one after the other on a multiprocessor, each of its products, or of its
/// instructions where there are few tokens, and of what neither hides.
template <class S>
int64_t cycles(const PackedA16Args& args, int processors) {
  constexpr int kOfWeights = 350, kUnhidden = 128;
  const int64_t tiles =
      (args.w.shape.num_rows + S::kRows - 1) / S::kRows * ((args.num_rows + S::kTokens - 1) / S::kTokens);
  return (tiles + processors - 1) / processors * (std::max(4 * S::kTokens, kOfWeights) * S::kWarpgroups + kUnhidden);
}

/// With the tile of the least cycles.
template <int kBits, bool kZeros>
void launch_best(const PackedA16Args& args, CUstream_st* stream) {
  using Wide = Shape<kBits, kZeros, 256, 2>;
  using Middle = Shape<kBits, kZeros, 128, 2>;
  using Narrow = Shape<kBits, kZeros, 64, 2>;
  using Least = Shape<kBits, kZeros, 64, 1>;
  const int n = num_multiprocessors();
  const int64_t wide = cycles<Wide>(args, n), middle = cycles<Middle>(args, n), narrow = cycles<Narrow>(args, n),
                least = cycles<Least>(args, n);
  if (wide <= std::min({middle, narrow, least})) return launch<Wide>(args, stream);
  if (middle <= std::min(narrow, least)) return launch<Middle>(args, stream);
  if (narrow <= least) return launch<Narrow>(args, stream);
  launch<Least>(args, stream);
}

}  // namespace

void packed_a16_cuda(const PackedA16Args& args, CUstream_st* stream) {
  check_a16(args.w, args.num_rows);
  if (args.num_rows == 0) return;
  for_bits(args.w.shape.bits, [&](auto bits) {
    constexpr int kBits = decltype(bits)::value;
    if constexpr (kBits < 8)
      if (has_line_zero(args.w)) return launch_best<kBits, false>(args, stream);
    launch_best<kBits, true>(args, stream);
  });
}

}  // namespace satin::kernels
