// What the kernels on packed weights share: how a warp reads its bricks ahead, sums over a block's warps, launches.
#pragma once
#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/cuda/packed_bits.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/packed_matmul.h"

namespace satin::kernels {

struct PackedParams {
  const uint32_t* words;
  const uint32_t* scales;
  const uint16_t* zeros;  // or null
  const void* x;          // half or bfloat16, as all activations (float: a normed input's)
  void* y;                // float where wide, and residual
  const uint16_t* bias;
  const void* residual;
  const float* norm_weight;
  float norm_eps;
  bool wide, gated;
  int num_x_rows, num_rows, num_columns;
  int row_bricks, column_bricks;
  int pair_bricks;          // of a gate's rows: bricks are taken in turn from it and from the up; 0: in order
  int groups, group_shift;  // the group of segment s of brick b: (4 b + s) >> group_shift
  float zero, step;
  bool scales_are_half, x_is_half;
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

/// Row brick number i of those a block counts from `first`, a multiple of kRows.
__device__ __forceinline__ int row_brick_of(const PackedParams& p, int first, int i) {
  return p.pair_bricks ? first / 2 + i / 2 + i % 2 * p.pair_bricks : first + i;
}

/// The bricks of a warp: kRows of them one above the other, then kWarps columns of bricks on; kDepth of these are asked
/// for ahead. Each is asked for into the registers whose last words were just used, so that none are moved, and from
/// an address that is made once for kDepth of them.
/// kEach: a lane has a pair of scales, and of zeros, for each of a brick's groups; else for that of segment q.
template <int kBits, int kSegments, int kRows, int kWarps, int kDepth, bool kEach>
class BricksAhead {
 public:
  static constexpr int kGroups = 4 / kSegments, kPairs = kEach ? kGroups : 1;
  uint32_t words[kDepth][kRows][2 * kBits] = {};
  uint32_t scales[kDepth][kRows][kPairs] = {};  ///< of rows g and g + 8
  uint32_t zeros[kDepth][kRows][kPairs] = {};

  __device__ __forceinline__ BricksAhead(const PackedParams& p, int row_brick, int warp, int lane)
      : p_(p),
        brick_(warp),
        bricks_left_(p.column_bricks - warp),
        groups_left_(p.groups - warp * kGroups - (kEach ? 0 : lane % 4 / kSegments)),
        group_shift_(p.group_shift - 2) {
    const int num_here = min(kRows, p.row_bricks - row_brick);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {  // those outside the matrix are another's: nothing is stored of them
      const int row = row_brick_of(p, row_brick, min(r, num_here - 1));
      words_at_[r] = static_cast<unsigned>(row * p.column_bricks + warp) * (kBrickWords / kLaneWords) +
                     static_cast<unsigned>(lane);
      pairs_at_[r] = (row * p.groups + (kSegments < 4 ? p.groups - groups_left_ : 0)) * 8 + lane / 4;
    }
    high_words_ = 4 * kLanes - 2 * lane;
  }

  /// Asks for number kAt of the next kDepth. What lies outside the matrix stays what it is: of no x but zeros.
  template <int kAt>
  __device__ __forceinline__ void load(bool with_zeros) {
    constexpr int kWordsOn = kAt * kWarps * kBrickWords;
    const bool is_here = bricks_left_ > kAt * kWarps;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      uint32_t(&to)[2 * kBits] = words[kAt][r];
      const uint32_t* const from = p_.words + uint64_t{words_at_[r]} * kLaneWords + kWordsOn;
      if constexpr (kBits == 1) {
        load_once_if(is_here, to[0], to[1], from);
      } else {
#pragma unroll
        for (int i = 0; i < 2 * kBits / 4; ++i)
          load_once_if(is_here, to[4 * i], to[4 * i + 1], to[4 * i + 2], to[4 * i + 3], from + 4 * kLanes * i);
        if constexpr (kBits == 3) load_once_if(is_here, to[4], to[5], from + high_words_);
      }
    }
    const int group = kSegments == 4 ? (brick_ + kAt * kWarps) >> group_shift_ : 0;
    constexpr int kPairsOn = kSegments == 4 ? 0 : 8 * kAt * kWarps * kGroups;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const bool has_group = kSegments == 4 ? is_here : groups_left_ > kAt * kWarps * kGroups + i;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int pair = pairs_at_[r] + 8 * group;
        load_if(has_group, scales[kAt][r][i], p_.scales + pair + kPairsOn + 8 * i);
        load_if(has_group && with_zeros, zeros[kAt][r][i], p_.zeros + pair + kPairsOn + 8 * i);
      }
    }
  }
  __device__ __forceinline__ void advance() {
    constexpr int kBricks = kDepth * kWarps;
    brick_ += kBricks;
    bricks_left_ -= kBricks;
    groups_left_ -= kBricks * kGroups;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      words_at_[r] += kBricks * kBrickWords / kLaneWords;
      if constexpr (kSegments < 4) pairs_at_[r] += 8 * kBricks * kGroups;
    }
  }

 private:
  static constexpr int kBrickWords = 2 * kBits * kLanes, kLaneWords = kBits == 1 ? 2 : 4;
  const PackedParams& p_;
  int brick_, bricks_left_, groups_left_;
  const int group_shift_;
  unsigned words_at_[kRows];  ///< a lane's words at a load; numbers, not pointers: these take half the registers
  int pairs_at_[kRows];
  int high_words_;  ///< from there to its words of the high bit
};

/// A lane's sums of rows g and g + 8 of row brick r, for row `x_row` of x: parts [warp][row of x][16 kRows].
template <int kRows>
__device__ __forceinline__ void put_sums(float* parts, int num_x_rows, int warp, int x_row, int r, int g, float lower,
                                         float upper) {
  float* const to = parts + (warp * num_x_rows + x_row) * kRows * kBrickRows + r * kBrickRows + g;
  to[0] = lower;
  to[8] = upper;
}

/// A row of x's sum over the warps, in their order, of row `row` of the block's.
template <int kRows, int kWarps>
__device__ __forceinline__ float sum_of_warps(const PackedParams& p, const float* parts, int x_row, int row) {
  constexpr int kOutputs = kRows * kBrickRows;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += parts[(w * p.num_x_rows + x_row) * kOutputs + row];
  return sum * p.step;
}

/// Sums over the warps -> y; `factor` of a row of x multiplies them.
template <int kRows, int kWarps, class Factor>
__device__ __forceinline__ void add_and_store(const PackedParams& p, const float* parts, int row_brick,
                                              const Factor& factor) {
  constexpr int kOutputs = kRows * kBrickRows;
  __syncthreads();
  const auto number = [&](uint16_t bits) { return pair_of(bits, p.x_is_half).x; };
  const auto narrow = [&](float x) {
    return p.x_is_half ? __half_as_ushort(__float2half_rn(x)) : __bfloat16_as_ushort(__float2bfloat16_rn(x));
  };
  if constexpr (kRows > 1) {
    if (p.gated) {
      const int size = p.num_rows / 2;
      for (int i = static_cast<int>(threadIdx.x); i < p.num_x_rows * kOutputs / 2; i += 32 * kWarps) {
        const int x_row = i / (kOutputs / 2), at = i % (kOutputs / 2), brick = at / kBrickRows;
        const int of_gate = 2 * kBrickRows * brick + at % kBrickRows, row = row_brick / 2 * kBrickRows + at;
        if (row >= size) continue;
        float gate = factor(x_row) * sum_of_warps<kRows, kWarps>(p, parts, x_row, of_gate);
        float up = factor(x_row) * sum_of_warps<kRows, kWarps>(p, parts, x_row, of_gate + kBrickRows);
        if (p.bias) gate += number(p.bias[row]), up += number(p.bias[size + row]);
        static_cast<uint16_t*>(p.y)[static_cast<int64_t>(x_row) * size + row] = narrow(gate / (1 + __expf(-gate)) * up);
      }
      return;
    }
  }
  for (int i = static_cast<int>(threadIdx.x); i < p.num_x_rows * kOutputs; i += 32 * kWarps) {
    const int row = row_brick * kBrickRows + i % kOutputs, x_row = i / kOutputs;
    if (row >= p.num_rows) continue;
    float sum = factor(x_row) * sum_of_warps<kRows, kWarps>(p, parts, x_row, i % kOutputs);
    const int64_t at = static_cast<int64_t>(x_row) * p.num_rows + row;
    if (p.bias) sum += number(p.bias[row]);
    if (p.wide) {
      if (p.residual) sum += static_cast<const float*>(p.residual)[at];
      static_cast<float*>(p.y)[at] = sum;
    } else {
      if (p.residual) sum += number(static_cast<const uint16_t*>(p.residual)[at]);
      static_cast<uint16_t*>(p.y)[at] = narrow(sum);
    }
  }
}

inline void require(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("packed weight: ") + cudaGetErrorString(status));
}

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

/// May begin while the kernel before it runs.
template <class Kernel, class... Arguments>
void launch_early(Kernel kernel, int blocks, int threads, int shared_bytes, const PackedParams& p,
                  [[maybe_unused]] CUstream_st* stream, const Arguments&... arguments) {
#if defined(__CUDACC__)
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = {static_cast<unsigned>(blocks), 1, 1};
  config.blockDim = {static_cast<unsigned>(threads), 1, 1};
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  require(cudaLaunchKernelEx(&config, kernel, p, arguments...));
#else
  emulation::Block block(static_cast<unsigned>(threads), [&] { kernel(p, arguments...); });
  for (blockIdx.x = 0; blockIdx.x < static_cast<unsigned>(blocks); ++blockIdx.x) {
    emulation::launched_memory().assign(static_cast<size_t>(shared_bytes) / 8 + 1, ~uint64_t{0});
    block.run();
  }
#endif
}

struct Yes {
  constexpr __host__ __device__ operator bool() const { return true; }
};
struct No {
  constexpr __host__ __device__ operator bool() const { return false; }
};
/// f(are there zeros), as a type: of a loop that is compiled for both.
template <class Function>
__device__ __forceinline__ void for_zeros(const PackedParams& p, const Function& f) {
#if defined(__CUDACC__)
  p.zeros ? f(Yes{}) : f(No{});
#else  // one version is compiled faster
  f(p.zeros != nullptr);
#endif
}

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
  p.row_bricks = static_cast<int>(shape.row_bricks());
  p.column_bricks = static_cast<int>(shape.column_bricks());
  p.pair_bricks = args.gated ? p.row_bricks / 2 : 0;
  p.groups = static_cast<int>(shape.num_groups());
  while ((int64_t{32} << p.group_shift) < shape.group_size) ++p.group_shift;
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

/// Calls f with the args' tile, or the rule's, as types. kMost: of the first so many of kDecodeTiles.
template <int kMost, class Function>
void for_tile(const DecodeArgs& args, const Function& f) {
  const DecodeTile tile = args.tile != DecodeTile{}
                              ? args.tile
                              : decode_tile_by_rule(args.w.shape, args.num_rows, args.gated, num_multiprocessors());
  const auto use = [&]<int kAt>(std::integral_constant<int, kAt>) {
    if (tile != kDecodeTiles[kAt]) return false;
    f(std::integral_constant<int, kDecodeTiles[kAt].row_bricks>{},
      std::integral_constant<int, kDecodeTiles[kAt].warps>{});
    return true;
  };
  const bool found = [&]<int... kI>(std::integer_sequence<int, kI...>) {
    return (use(std::integral_constant<int, kI>{}) || ...);
  }
  (std::make_integer_sequence<int, kMost>{});
  if (!found) throw std::invalid_argument("packed decode: no such tile");
}

/// Five to sixteen rows of bfloat16 x (packed_skinny.cu).
void packed_skinny_cuda(const DecodeArgs& args, CUstream_st* stream);

}  // namespace satin::kernels
