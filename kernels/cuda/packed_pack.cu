// A warp packs a brick: a lane reads its eight codes of each segment of rows g and g + 8 and writes its words.
#include "kernels/cuda/packed_device.cuh"
#include "kernels/packed_pack.h"

namespace satin::kernels {
namespace {

constexpr int kPackWarps = 8;

struct Counts {  // of bricks and groups: PackedShape counts them on the host
  int64_t row_bricks, column_bricks, brick_words, groups;
};

struct Codes8 {
  uint32_t fours[2];
};

/// Eight codes of a row from `column` on; 0 outside the matrix.
__device__ __forceinline__ Codes8 load_codes(const PackArgs& a, int64_t row, int64_t column) {
  Codes8 found{};
  const int64_t columns = a.shape.num_columns;
  if (row >= a.shape.num_rows || column >= columns) return found;
  const uint8_t* const from = a.codes + row * columns + column;
  if (columns % 8 == 0 && reinterpret_cast<uintptr_t>(a.codes) % 8 == 0) {
    const uint2 v = *reinterpret_cast<const uint2*>(from);
    found = {v.x, v.y};
  } else {
    for (int j = 0; j < 8 && column + j < columns; ++j)
      found.fours[j / 4] |= static_cast<uint32_t>(from[j]) << (8 * (j % 4));
  }
  return found;
}

/// c0 c1 c2 c3 -> c0 c2 c1 c3
__device__ __forceinline__ uint32_t in_layout_order(uint32_t four) { return __byte_perm(four, 0, 0x3120); }

template <int kBits>
__device__ __forceinline__ void put_four(uint32_t (&words)[2 * kBits], int segment, int f, int upper, uint32_t four) {
  if constexpr (kBits == 8) words[8 * upper + 2 * segment + f] = four;
  if constexpr (kBits == 4) words[4 * upper + segment / 2 * 2 + f] |= four << (4 * (segment % 2));
  if constexpr (kBits == 2) words[word_of_two_bits(upper, f)] |= four << (2 * segment);
  if constexpr (kBits == 1) words[upper] |= four << (segment + 4 * f);
  if constexpr (kBits == 3) {
    words[word_of_two_bits(upper, f)] |= (four & 0x03030303u) << (2 * segment);
    words[4 + upper] |= (four >> 2 & 0x01010101u) << (2 * segment + f);
  }
}

template <int kBits>
__global__ void __launch_bounds__(32 * kPackWarps) pack_kernel(const PackArgs a, const Counts grid) {
  const PackedShape& shape = a.shape;
  const int64_t brick = static_cast<int64_t>(blockIdx.x) * kPackWarps + threadIdx.x / 32, bricks = grid.column_bricks;
  if (brick >= grid.row_bricks * bricks) return;
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, q = lane % 4;
  const int64_t row = brick / bricks * kBrickRows, column = brick % bricks * kBrickColumns;

  uint32_t words[2 * kBits] = {};
#pragma unroll
  for (int upper = 0; upper < 2; ++upper)
#pragma unroll
    for (int segment = 0; segment < 4; ++segment) {
      const Codes8 codes = load_codes(a, row + g + 8 * upper, column + 32 * segment + 8 * q);
#pragma unroll
      for (int f = 0; f < 2; ++f) put_four<kBits>(words, segment, f, upper, in_layout_order(codes.fours[f]));
    }
  uint32_t* const to = a.words + brick * grid.brick_words;
  if constexpr (kBits == 1) {
    reinterpret_cast<uint2*>(to)[lane] = {words[0], words[1]};
  } else {
#pragma unroll
    for (int i = 0; i < kBits / 2; ++i)
      reinterpret_cast<uint4*>(to)[i * 32 + lane] = {words[4 * i], words[4 * i + 1], words[4 * i + 2],
                                                     words[4 * i + 3]};
    if constexpr (kBits == 3) reinterpret_cast<uint2*>(to + 4 * 32)[lane] = {words[4], words[5]};
  }

  // The pairs of groups that begin in this brick, at most four: one a lane.
  const int64_t groups = grid.groups;
  const int64_t group = (column + shape.group_size - 1) / shape.group_size + lane / 8;
  if (group >= groups || group * shape.group_size >= column + kBrickColumns) return;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    const int64_t in_row = row + lane % 8 + 8 * upper, from = in_row * groups + group;
    const int64_t pair = ((brick / bricks * groups + group) * 8 + lane % 8) * 2 + upper;
    const bool inside = in_row < shape.num_rows;
    const float scale = inside ? a.scales[from] : 0;
    static_cast<uint16_t*>(a.scale_pairs)[pair] = a.scale_dtype == Half::kFloat16
                                                      ? __half_as_ushort(__float2half_rn(scale))
                                                      : __bfloat16_as_ushort(__float2bfloat16_rn(scale));
    if (a.zeros) a.zero_pairs[pair] = static_cast<uint8_t>(inside ? a.zeros[from] : 0);
  }
}

}  // namespace

void pack_weight_cuda(const PackArgs& args, CUstream_st* stream) {
  check(args.shape);
  const PackedShape& shape = args.shape;
  const Counts grid{shape.row_bricks(), shape.column_bricks(), shape.brick_words(), shape.num_groups()};
  const int64_t bricks = grid.row_bricks * grid.column_bricks;
  const auto blocks = static_cast<unsigned>((bricks + kPackWarps - 1) / kPackWarps);
  for_bits(shape.bits,
           [&](auto bits) { pack_kernel<decltype(bits)::value><<<blocks, 32 * kPackWarps, 0, stream>>>(args, grid); });
  require(cudaGetLastError());
}

}  // namespace satin::kernels
