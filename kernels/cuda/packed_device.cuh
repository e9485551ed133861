// What the kernels on packed weights share: their arguments, and how a warp reads its bricks ahead.
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

  __device__ __forceinline__ int column_bricks() const {
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

/// The bricks of a warp: kRows of them one above the other, then kWarps columns of bricks on. kSlots of these are asked
/// for ahead, each into the registers whose last words were just used, so that none are moved. One of kSlots and kRows
/// is a multiple of the other.
/// kEach: a lane has a pair of scales, and of zeros if there are any, for each of a brick's groups; else for that of
/// segment q, and of zeros where kZeros.
template <int kBits, int kSegments, int kRows, int kWarps, int kSlots, bool kEach, bool kZeros>
class BricksAhead {
 public:
  static constexpr int kGroups = 4 / kSegments, kPairs = kEach ? kGroups : 1;
  /// Columns of bricks after which a slot has the same row again.
  static constexpr int kDepth = kSlots > kRows ? kSlots / kRows : 1;
  uint32_t words[kSlots][2 * kBits];
  uint32_t scales[kSlots][kPairs];  ///< of rows g and g + 8
  uint32_t zeros[kSlots][kPairs];

  __device__ __forceinline__ BricksAhead(const PackedParams& p, int warp, int lane)
      : p_(p),
        warp_(warp),
        lane_(lane),
        column_bricks_(p.column_bricks()),
        on_(p.gated ? p.row_bricks / 2u : 1),
        two_on_(p.gated ? 1 : 2),
        group_shift_(p.group_shift - 2),
        high_words_(4 * kLanes - 2 * lane) {}

  /// Asks for the first of the rows from `row_brick` on. num_here: of the kRows, those that there are; of the others
  /// all is zeros.
  __device__ __forceinline__ void start(int row_brick, int num_here) {
    first_row_ = p_.gated ? row_brick / 2u : row_brick;
    num_here_ = num_here;
    brick_ = warp_;
    bricks_left_ = column_bricks_ - warp_;
    groups_left_ = p_.groups - warp_ * kGroups - (kEach ? 0 : lane_ % 4u / kSegments);
    words_ = settled(p_.words + (warp_ * kBrickWords + lane_ * kLaneWords));
    pairs_at_ = (kSegments < 4 ? p_.groups - groups_left_ : 0) * 8 + lane_ / 4u;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
#pragma unroll
      for (uint32_t& word : words[i]) word = 0;
#pragma unroll
      for (int j = 0; j < kPairs; ++j) scales[i][j] = zeros[i][j] = 0;
    }
    for_each<kSlots>([&](auto item) { load<decltype(item)::value>(); });
  }
  /// Whether item kItem, counted from the present column of bricks on, is in the matrix's columns.
  template <int kItem>
  __device__ __forceinline__ bool has() const {
    return bricks_left_ > kItem / kRows * kWarps;
  }
  /// Asks for item kItem into slot kItem % kSlots. What lies outside the matrix stays what it is: of no x but zeros.
  template <int kItem>
  __device__ __forceinline__ void load() {
    constexpr int r = kItem % kRows, kOn = kItem / kRows * kWarps, kSlot = kItem % kSlots;
    const bool is_here = has<kItem>() && r < num_here_;
    const auto row = static_cast<unsigned>(first_row_ + r / 2 * two_on_ + r % 2 * on_);
    const uint32_t* const from = part(words_, row, column_bricks_ * kBrickWords * 4) + kOn * kBrickWords;
    uint32_t(&to)[2 * kBits] = words[kSlot];
    if constexpr (kBits == 1) {
      load_once_if(is_here, to[0], to[1], from);
    } else {
#pragma unroll
      for (int i = 0; i < 2 * kBits / 4; ++i)
        load_once_if(is_here, to[4 * i], to[4 * i + 1], to[4 * i + 2], to[4 * i + 3], from + 4 * kLanes * i);
      if constexpr (kBits == 3) load_once_if(is_here, to[4], to[5], from + high_words_);
    }
    const int pairs_at = kSegments == 4 ? pairs_at_ + 8 * ((brick_ + kOn) >> group_shift_) : pairs_at_;
    constexpr int kPairsOn = kSegments == 4 ? 0 : 8 * kOn * kGroups;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const bool has_group = kSegments == 4 ? is_here : groups_left_ > kOn * kGroups + i && r < num_here_;
      load_if(has_group, scales[kSlot][i], part(settled(p_.scales + pairs_at), row, p_.groups * 32) + kPairsOn + 8 * i);
      if constexpr (kZeros)
        load_if(has_group && (!kEach || p_.zeros), zeros[kSlot][i],
                part(settled(p_.zeros + pairs_at), row, p_.groups * 16) + kPairsOn + 8 * i);
    }
  }
  /// kDepth columns of bricks are done.
  __device__ __forceinline__ void advance() {
    constexpr int kBricks = kDepth * kWarps;
    brick_ += kBricks;
    bricks_left_ -= kBricks;
    groups_left_ -= kBricks * kGroups;
    words_ += kBricks * kBrickWords;
    if constexpr (kSegments < 4) pairs_at_ += 8 * kBricks * kGroups;
  }

 private:
  static constexpr int kBrickWords = 2 * kBits * kLanes, kLaneWords = kBits == 1 ? 2 : 4;
  /// In one instruction: `bytes` a row.
  template <class T>
  static __device__ __forceinline__ const T* part(const T* first, unsigned row, int bytes) {
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(first) +
                                      uint64_t{row} * static_cast<unsigned>(bytes));
  }
  const PackedParams& p_;
  const int warp_, lane_, column_bricks_;
  const int on_, two_on_;  ///< row bricks from an even one to the next, and to the next even one
  const int group_shift_;
  const int high_words_;  ///< from a lane's words to those of the high bit
  int first_row_, num_here_, brick_, bricks_left_, groups_left_;
  const uint32_t* words_;  ///< a lane's of row brick 0
  int pairs_at_;
};

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
  constexpr __host__ __device__ operator bool() const { return true; }
};
struct No {
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
