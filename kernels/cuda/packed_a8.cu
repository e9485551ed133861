// 8-bit activations times packed weights on Hopper's tensor cores.
//
// Y^T = W X^T: a warpgroup product's operand A may come from registers, and a lane's words of a brick are that operand
// but for a shift, a mask and the zero point. So weights go packed to shared memory and are never written as bytes;
// the tensor cores read activations alone from there. A thread has rows g and g + 8 of a brick, so a chunk's scales
// are two numbers. One warp asks the copy engine for the next 128 columns; outside the matrix it writes zeros.
//
// A warpgroup has kBlocks x 64 rows and kTokens columns of Y^T, in fp32, and computes a chunk of them in kParts.
#include <cmath>

#include "kernels/cuda/packed_a8_device.cuh"
#include "kernels/packed_a8.h"

namespace satin::kernels {
namespace {

using namespace a8;

/// Levels as bytes: (code in the top bits) ^ flip = 2^log2_factor level. flip 0: there is none.
struct Top {
  uint32_t flip = 0;
  int log2_factor = 0;
};
Top top_of(const PackedMatrix& w) {
  const int bits = w.shape.bits;
  if (w.zeros) return {};
  if (w.step == 1 && w.zero == 1 << (bits - 1)) return {0x80, 8 - bits};
  if (w.step == 2 && w.zero == (1 << bits) - 1) return {0x80u | 0x80u >> bits, 7 - bits};  // odd levels, by halves
  return {};
}

template <class S>
void launch(const PackedA8Args& args, CUstream_st* stream) {
  const PackedShape& shape = args.w.shape;
  A8Params p{};
  p.num_tokens = static_cast<int>(args.num_rows);
  p.num_rows = static_cast<int>(shape.num_rows);
  p.column_bricks = static_cast<int>(shape.column_bricks());
  p.row_bricks = static_cast<int>(shape.row_bricks());
  while ((int64_t{32} << p.group_shift) < shape.group_size) ++p.group_shift;
  if (shape.num_groups() == 1) p.group_shift = 30;
  p.x = map_of(CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, args.codes, {a8_row_bytes(shape.num_columns), args.num_rows},
               {kBrickColumns, S::kTokens}, true);
  p.words =
      map_of(CU_TENSOR_MAP_DATA_TYPE_UINT32, 4, args.w.words,
             {shape.column_bricks() * shape.brick_words(), shape.row_bricks()}, {S::kBrickWords, S::kBricks}, false);
  if constexpr (!S::kWholeRow) {
    const Box pairs{shape.num_groups() * 8, shape.row_bricks()}, box{S::kChunks * 8, S::kBricks};
    p.scales = map_of(CU_TENSOR_MAP_DATA_TYPE_UINT32, 4, args.w.scales, pairs, box, false);
    if (args.w.zeros) p.zeros = map_of(CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, args.w.zeros, pairs, box, false);
  }
  p.row_scales = static_cast<const uint32_t*>(args.w.scales);
  p.row_zeros = reinterpret_cast<const uint16_t*>(args.w.zeros);
  p.has_zeros = args.w.zeros != nullptr;
  p.token_scales = args.scales;
  p.y = static_cast<uint16_t*>(args.y);
  p.bias = static_cast<const uint16_t*>(args.bias);
  p.row_tiles = (p.num_rows + S::kRows - 1) / S::kRows;
  p.token_tiles = (p.num_tokens + S::kTokens - 1) / S::kTokens;
  p.zero_bytes = 0x80808080u - static_cast<uint32_t>(args.w.zero) * 0x01010101u;
  p.step = static_cast<uint32_t>(args.w.step);
  p.factor = 1;
  if constexpr (S::kTop) {
    const Top top = top_of(args.w);
    p.zero_bytes = top.flip * 0x01010101u;
    p.factor = std::ldexp(1.0f, -top.log2_factor);
  }
  p.scales_are_half = args.w.scale_dtype == Half::kFloat16;
  p.y_is_half = args.dtype == Half::kFloat16;
  const auto kernel = a8_kernel<S>;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes));
  const int blocks = std::min(p.row_tiles * p.token_tiles, num_multiprocessors());
  kernel<<<blocks, S::kThreads, S::kBytes, stream>>>(p);
  require(cudaGetLastError());
}

template <class S>
int64_t num_tiles(const PackedA8Args& args) {
  return (args.w.shape.num_rows + S::kRows - 1) / S::kRows * ((args.num_rows + S::kTokens - 1) / S::kTokens);
}

/// The widest tile that gives every multiprocessor work: it unpacks a weight for most tokens.
template <int kBits, int kChunk, bool kTop>
void launch_widest(const PackedA8Args& args, CUstream_st* stream) {
  constexpr int kParts = kChunk == 0 ? 1 : 2;
  using Narrow = Shape<kBits, kChunk, kTop, 64, kParts>;
  using Middle = Shape<kBits, kChunk, kTop, 128, kParts>;
  const int processors = num_multiprocessors();
  if constexpr (kChunk != 0) {  // whole rows would spill registers, and have no conversions to hide
    using Wide = Shape<kBits, kChunk, kTop, 256, 4>;
    if (num_tiles<Wide>(args) >= processors) return launch<Wide>(args, stream);
  }
  if (args.num_rows <= Narrow::kTokens || num_tiles<Middle>(args) < processors / 2) return launch<Narrow>(args, stream);
  launch<Middle>(args, stream);
}

template <int kBits, int kChunk>
void launch_levels(const PackedA8Args& args, CUstream_st* stream) {
  if (top_of(args.w).flip != 0) return launch_widest<kBits, kChunk, true>(args, stream);
  launch_widest<kBits, kChunk, false>(args, stream);
}

template <int kBits>
void launch_chunks(const PackedA8Args& args, CUstream_st* stream) {
  if (args.w.shape.num_groups() == 1) return launch_levels<kBits, 0>(args, stream);
  if (args.w.shape.group_size == 64) return launch_levels<kBits, 64>(args, stream);
  launch_levels<kBits, 128>(args, stream);
}

}  // namespace

void packed_a8_cuda(const PackedA8Args& args, CUstream_st* stream) {
  check_a8(args.w, args.num_rows);
  if (args.num_rows == 0) return;
  const PackedShape& shape = args.w.shape;
  if (shape.num_groups() > 1 && (shape.group_size < 64 || (shape.group_size & (shape.group_size - 1)) != 0))
    throw std::invalid_argument("packed_a8: group_size is to be a power of two from 64 on, or a whole row");
  switch (shape.bits) {
    case 1:
      return launch_chunks<1>(args, stream);
    case 2:
      return launch_chunks<2>(args, stream);
    case 3:
      return launch_chunks<3>(args, stream);
    default:
      launch_chunks<4>(args, stream);
  }
}

}  // namespace satin::kernels
