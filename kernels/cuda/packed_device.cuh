// What the kernels on packed weights share: their arguments, and how they are chosen.
#pragma once
#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/packed_bits.cuh"
#include "kernels/packed_matmul.h"

namespace satin::kernels {

/// A kernel's arguments are read 64 bytes at a time, from memory, and each time all wait: the first 48 are with what
/// the hardware puts before them, and are all that asking for a brick takes.
struct PackedParams {
  const uint32_t* words;
  const uint32_t* scales;
  const uint16_t* zeros;  // or null
  const void* x;          // half or bfloat16, as all activations (float: a normed input's)
  int num_columns, row_bricks, groups;
  uint16_t row_bricks_a_block;
  uint8_t group_shift;  // the group of segment s of brick b: (4 b + s) >> group_shift
  bool gated;           // bricks of rows are taken in turn from the gate's, the first half, and from the up's

  void* y;  // float where wide, and residual
  const uint16_t* bias;
  const void* residual;
  const float* norm_weight;
  float norm_eps, inverse_columns;
  int num_x_rows, num_rows;
  float zero, step;
  bool wide, scales_are_half, x_is_half;

  __host__ __device__ __forceinline__ int column_bricks() const {
    return static_cast<int>((static_cast<unsigned>(num_columns) + kBrickColumns - 1) / kBrickColumns);
  }
};

/// Calls f with 0 ... kCount - 1 as types.
template <int kCount, class Function>
__device__ __forceinline__ void for_each(const Function& f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>) { (f(std::integral_constant<int, kI>{}), ...); }
  (std::make_integer_sequence<int, kCount>{});
}

/// The same until f says false.
template <int kCount, class Function>
__device__ __forceinline__ void for_each_while(const Function& f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>) {
    static_cast<void>((f(std::integral_constant<int, kI>{}) && ...));
  }
  (std::make_integer_sequence<int, kCount>{});
}

__device__ __forceinline__ float2 pair_of(uint32_t bits, bool is_half) {
  if (is_half) return __half22float2(*reinterpret_cast<const __half2*>(&bits));
  return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
}

inline void require(cudaError_t status) { require(status, "packed weight"); }

inline int num_multiprocessors() {
#if defined(__CUDACC__)
  int device = 0, processors = 0;
  require(cudaGetDevice(&device));
  require(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  return processors;
#else
  return 132;
#endif
}

struct Yes {
  static constexpr bool kIs = true;
  constexpr __host__ __device__ operator bool() const { return true; }
};
struct No {
  static constexpr bool kIs = false;
  constexpr __host__ __device__ operator bool() const { return false; }
};
inline PackedParams params_of(const DecodeArgs& args) {
  const PackedShape& shape = args.w.shape;
  PackedParams p{};
  p.words = args.w.words;
  p.scales = static_cast<const uint32_t*>(args.w.scales);
  p.zeros = reinterpret_cast<const uint16_t*>(args.w.zeros);
  p.x = args.x;
  p.y = args.y;
  p.bias = static_cast<const uint16_t*>(args.bias);
  p.residual = args.residual;
  p.norm_weight = args.norm_weight;
  p.norm_eps = args.norm_eps;
  p.wide = args.wide;
  p.gated = args.gated;
  p.num_x_rows = args.num_rows;
  p.num_rows = static_cast<int>(shape.num_rows);
  p.num_columns = static_cast<int>(shape.num_columns);
  p.inverse_columns = 1.f / static_cast<float>(shape.num_columns);
  p.row_bricks = static_cast<int>(shape.row_bricks());
  p.groups = static_cast<int>(shape.num_groups());
  while (p.groups > 1 && (int64_t{32} << p.group_shift) < shape.group_size) ++p.group_shift;
  if (p.groups == 1) p.group_shift = 30;
  p.step = static_cast<float>(args.w.step);
  p.zero = static_cast<float>(args.w.zero) / p.step;
  p.scales_are_half = args.w.scale_dtype == Half::kFloat16;
  p.x_is_half = args.dtype == Half::kFloat16;
  return p;
}

/// Calls f with the bits as a type.
template <class Function>
void for_bits(int bits, const Function& f) {
  if (bits == 1) return f(std::integral_constant<int, 1>{});
  if (bits == 2) return f(std::integral_constant<int, 2>{});
  if (bits == 3) return f(std::integral_constant<int, 3>{});
  if (bits == 4) return f(std::integral_constant<int, 4>{});
  return f(std::integral_constant<int, 8>{});
}

/// The same with the segments of a brick that share a scale.
template <class Function>
void for_bits_and_group(int bits, int group_shift, const Function& f) {
  for_bits(bits, [&](auto b) {
    if (group_shift == 0) return f(b, std::integral_constant<int, 1>{});
    if (group_shift == 1) return f(b, std::integral_constant<int, 2>{});
    return f(b, std::integral_constant<int, 4>{});
  });
}

/// The args' tile, or the rule's.
inline DecodeTile tile_of(const DecodeArgs& args) {
  if (args.tile != DecodeTile{}) return args.tile;
  return decode_tile_by_rule(args.w.shape, args.num_rows, args.gated, num_multiprocessors());
}

/// Two to four rows of x (packed_few.cu).
void packed_few_cuda(const DecodeArgs& args, CUstream_st* stream);
/// Five to sixteen rows of bfloat16 x (packed_skinny.cu).
void packed_skinny_cuda(const DecodeArgs& args, CUstream_st* stream);

}  // namespace satin::kernels
