// Rows of a packed weight as numbers: what an embedding looks up, and what a plain product multiplies with.
//
// A thread makes 32 columns of a row, eight of each segment of a brick: these are what one lane has of it
// (packed_weight.h), a word or a few, and it writes 16 bytes at a time where rows are a multiple of that.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/packed_bits.cuh"
#include "kernels/packed_matmul.h"

namespace satin::kernels {
namespace {

constexpr int kThreads = 256;

constexpr int kWarps = kThreads / kLanes;

struct Params {
  DequantizeArgs args;
  int64_t column_bricks, groups;
  bool whole_eights;  ///< rows of out are multiples of 8
};

/// A lane's codes of one row: `of(T, f)` are four of segment T, a byte each, in the order c0 c2 c1 c3.
template <int kBits>
struct RowCodes {
  uint32_t words[kBits];

  __device__ RowCodes(const uint32_t* brick, int lane, int half) {
    if constexpr (kBits == 1) {
      words[0] = brick[2 * lane + half];
    } else if constexpr (kBits <= 3) {
      words[0] = brick[4 * lane + word_of_two_bits(half, 0)], words[1] = brick[4 * lane + word_of_two_bits(half, 1)];
      if constexpr (kBits == 3) words[2] = brick[4 * kLanes + 2 * lane + half];
    } else {
#pragma unroll
      for (int w = 0; w < kBits; ++w) words[w] = brick[((kBits * half + w) / 4 * kLanes + lane) * 4 + w % 4];
    }
  }
  __device__ uint32_t of(int segment, int four) const {
    if constexpr (kBits == 1) return (words[0] >> (segment + 4 * four)) & 0x01010101u;
    if constexpr (kBits == 4) return (words[2 * (segment / 2) + four] >> (4 * (segment % 2))) & 0x0f0f0f0fu;
    if constexpr (kBits == 8) return words[2 * segment + four];
    const uint32_t low = (words[four] >> (2 * segment)) & 0x03030303u;
    if constexpr (kBits == 3) return low | ((words[2] >> (2 * segment + four)) & 0x01010101u) << 2;
    return low;
  }
};

__device__ float rounded(float x, Rounding rounding) {
  if (rounding == Rounding::kBFloat16) return __bfloat162float(__float2bfloat16_rn(x));
  return rounding == Rounding::kFloat16 ? __half2float(__float2half_rn(x)) : x;
}

/// Columns [column, column + 8) of row `item`, those inside the matrix.
__device__ void store_eight(const Params& p, int64_t item, int64_t column, const float (&values)[8]) {
  const int64_t num_columns = p.args.w.shape.num_columns, at = item * num_columns + column;
  const bool is_half = p.args.out_rounding == Rounding::kFloat16;
  const auto narrow = [&](float x) {
    return is_half ? __half_as_ushort(__float2half_rn(x)) : __bfloat16_as_ushort(__float2bfloat16_rn(x));
  };
  const auto pair = [&](int i) { return narrow(values[i]) | static_cast<uint32_t>(narrow(values[i + 1])) << 16; };
  if (p.whole_eights && p.args.wide) {
    float4* const to = reinterpret_cast<float4*>(static_cast<float*>(p.args.out) + at);
    const auto four = [&](int i) -> float4 {
      const Rounding r = p.args.out_rounding;
      return {rounded(values[i], r), rounded(values[i + 1], r), rounded(values[i + 2], r), rounded(values[i + 3], r)};
    };
    to[0] = four(0), to[1] = four(4);
  } else if (p.whole_eights) {
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(p.args.out) + at) = {pair(0), pair(2), pair(4), pair(6)};
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (column + i >= num_columns) break;
      if (p.args.wide)
        static_cast<float*>(p.args.out)[at + i] = rounded(values[i], p.args.out_rounding);
      else
        static_cast<uint16_t*>(p.args.out)[at + i] = narrow(values[i]);
    }
  }
}

/// 32 columns of a row of out.
template <int kBits>
__device__ __forceinline__ void dequantize(const Params& p, int64_t item, int64_t brick, int q) {
  const PackedMatrix& w = p.args.w;
  const PackedShape& shape = w.shape;
  const int64_t row = p.args.indices ? p.args.indices[item] : p.args.first_row + item;
  const bool inside = row >= 0 && row < shape.num_rows;
  const int64_t row_brick = (inside ? row : 0) / kBrickRows;
  const int in_brick = static_cast<int>((inside ? row : 0) % kBrickRows), g = in_brick % 8, half = in_brick / 8;
  const RowCodes<kBits> codes(w.words + (row_brick * p.column_bricks + brick) * 2 * kBits * kLanes, 4 * g + q, half);
  // All are asked for before one is waited for: a step of text has one row.
  uint16_t scales[4] = {};
  int zeros[4] = {};
#pragma unroll
  for (int segment = 0; segment < 4; ++segment) {
    const int64_t column = brick * kBrickColumns + 32 * segment + 8 * q;
    if (column >= shape.num_columns) break;
    const int64_t at =
        ((row_brick * p.groups + static_cast<uint32_t>(column) / static_cast<uint32_t>(shape.group_size)) * 8 + g) * 2 +
        half;
    scales[segment] = static_cast<const uint16_t*>(w.scales)[at];
    zeros[segment] = w.zeros ? w.zeros[at] : w.zero;
  }
#pragma unroll
  for (int segment = 0; segment < 4; ++segment) {
    const int64_t column = brick * kBrickColumns + 32 * segment + 8 * q;
    if (column >= shape.num_columns) break;
    const float scale = w.scale_dtype == Half::kFloat16 ? __half2float(__ushort_as_half(scales[segment]))
                                                        : __uint_as_float(static_cast<uint32_t>(scales[segment]) << 16);
    const int zero = zeros[segment];
    float values[8];
#pragma unroll
    for (int f = 0; f < 2; ++f) {
      const uint32_t four = codes.of(segment, f);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        constexpr int kByte[4] = {0, 2, 1, 3};
        const int level = w.step * static_cast<int>(four >> (8 * kByte[c]) & 0xffu) - zero;
        values[4 * f + c] = inside ? rounded(scale * static_cast<float>(level), p.args.rounding) : 0;
      }
    }
    store_eight(p, item, column, values);
  }
}

/// A warp has a brick of eight rows: a lane one of them and 32 columns.
template <int kBits>
__global__ void __launch_bounds__(kThreads) dequantize_kernel(const Params p) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes, q = thread % 4;
  const int64_t brick = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  wait_for_dependencies();
  for (int64_t item = int64_t{blockIdx.y} * 8 + thread % kLanes / 4; item < p.args.num_rows;
       item += int64_t{gridDim.y} * 8) {
    const bool counts = p.args.counts && brick == 0 && q == 0;
    const int64_t count = counts ? p.args.counts[item] : 0;
    if (brick < p.column_bricks) dequantize<kBits>(p, item, brick, q);
    if (counts) {
      p.args.counts[item] = count + 1;
      __threadfence();  // it may be read before this kernel has ended
    }
  }
}

}  // namespace

void packed_dequantize_cuda(const DequantizeArgs& args, CUstream_st* stream) {
  check(args.w.shape);
  if (args.num_rows == 0) return;
  const PackedShape& shape = args.w.shape;
  const Params p{args, shape.column_bricks(), shape.num_groups(), shape.num_columns % 8 == 0};
  const auto kernel = shape.bits == 1   ? dequantize_kernel<1>
                      : shape.bits == 2 ? dequantize_kernel<2>
                      : shape.bits == 3 ? dequantize_kernel<3>
                      : shape.bits == 4 ? dequantize_kernel<4>
                                        : dequantize_kernel<8>;
  constexpr int64_t kMostBlocksY = 65535;
  launch_early("packed_dequantize", kernel,
               {.blocks = static_cast<unsigned>((p.column_bricks + kWarps - 1) / kWarps),
                .threads = kThreads,
                .blocks_y = static_cast<unsigned>(std::min((args.num_rows + 7) / 8, kMostBlocksY))},
               stream, p);
}

}  // namespace satin::kernels
