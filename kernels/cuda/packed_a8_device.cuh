// What a block of packed_a8.cu does: one warp copies tiles, two warpgroups unpack, multiply, add up and store.
#pragma once
#include <cuda.h>

#include <algorithm>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/packed_device.cuh"
#include "kernels/cuda/packed_tiles.cuh"

namespace satin::kernels::a8 {

struct A8Params {
  CUtensorMap x, words, scales, zeros;
  const uint32_t* row_scales;  // of one group a row
  const uint16_t* row_zeros;
  const float* token_scales;
  uint16_t* y;
  const uint16_t* bias;
  int num_tokens, num_rows, column_bricks, row_bricks;
  int group_shift;  // a chunk of brick b lies in group (4 b + segment) >> group_shift
  int row_tiles, token_tiles;
  uint32_t zero_bytes, step;
  float factor;  // of the tokens' scales
  bool has_zeros, scales_are_half, y_is_half;
};

/// kChunk: columns between two promotions to fp32, 32, 64 or 128; 0: one for the whole row.
/// kTop: levels are top_of()'s.
template <int kNumBits, int kColumns, bool kIsTop, int kNumTokens, int kNumParts>
struct Shape {
  static constexpr bool kTop = kIsTop;
  static constexpr int kBits = kNumBits, kChunk = kColumns, kTokens = kNumTokens, kParts = kNumParts, kWarpgroups = 2;
  static constexpr bool kWholeRow = kChunk == 0;
  static constexpr int kRows = 64 * kWarpgroups, kBricks = kRows / kBrickRows;
  static constexpr int kChunks = kWholeRow ? 1 : kBrickColumns / kChunk, kSteps = 4 / kChunks;
  static constexpr int kBrickWords = 2 * kBits * kLanes;
  // of a stage
  static constexpr int kXBytes = kTokens * kBrickColumns, kWordBytes = kBricks * kBrickWords * 4;
  static constexpr int kScaleBytes = kWholeRow ? 0 : kBricks * kChunks * 32, kZeroBytes = kScaleBytes / 2;
  static constexpr int kStageBytes = (kXBytes + kWordBytes + kScaleBytes + kZeroBytes + 1023) / 1024 * 1024;
  // a warpgroup's outputs, [kTokens][64 rows, 8 of padding]
  static constexpr int kOutStride = 72, kOutBytes = kTokens * kOutStride * 2;
  static constexpr int kFixedBytes = 1024 + 1024 + kWarpgroups * kOutBytes;  // alignment, barriers
  static constexpr int kStages = std::min(8, (kSharedBytes - kFixedBytes) / kStageBytes);
  static constexpr int kBytes = kFixedBytes + kStages * kStageBytes;
  static constexpr int kThreads = 128 * (kWarpgroups + 1);
  static constexpr int kMathRegisters = 240, kCopyRegisters = 24;
  static_assert(kStages >= 3);
};

/// Shared memory of a block.
template <class S>
struct Storage {
  uint32_t stages, barriers, outputs;
  __device__ __forceinline__ explicit Storage(uint32_t base)
      : stages((base + 1023) & ~1023u), barriers(stages + S::kStages * S::kStageBytes), outputs(barriers + 1024) {}
  __device__ __forceinline__ uint32_t x(int stage) const { return stages + stage * S::kStageBytes; }
  __device__ __forceinline__ uint32_t words(int stage) const { return x(stage) + S::kXBytes; }
  __device__ __forceinline__ uint32_t scales(int stage) const { return words(stage) + S::kWordBytes; }
  __device__ __forceinline__ uint32_t zeros(int stage) const { return scales(stage) + S::kScaleBytes; }
  __device__ __forceinline__ uint32_t full(int stage) const { return barriers + 8 * stage; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return barriers + 8 * (S::kStages + stage); }
};

/// Four codes of segment kT, row g or g + 8, as bytes.
template <int kBits, int kT, int kFour, int kUpper>
__device__ __forceinline__ uint32_t codes_of(const uint32_t (&words)[2 * kBits]) {
  if constexpr (kBits == 4) return words[4 * kUpper + 2 * (kT / 2) + kFour] >> (4 * (kT % 2)) & 0x0f0f0f0fu;
  if constexpr (kBits == 2) return words[word_of_two_bits(kUpper, kFour)] >> (2 * kT) & 0x03030303u;
  if constexpr (kBits == 1) return words[kUpper] >> (kT + 4 * kFour) & 0x01010101u;
  if constexpr (kBits == 3)
    return (words[word_of_two_bits(kUpper, kFour)] >> (2 * kT) & 0x03030303u) |
           shifted_right<2 * kT + kFour - 2>(words[4 + kUpper]) & 0x04040404u;
}

/// The same, each in the top bits of its byte; the other bits are something.
template <int kBits, int kT, int kFour, int kUpper>
__device__ __forceinline__ uint32_t top_codes_of(const uint32_t (&words)[2 * kBits]) {
  if constexpr (kBits == 4) return shifted_right<4 * (kT % 2) - 4>(words[4 * kUpper + 2 * (kT / 2) + kFour]);
  if constexpr (kBits == 2) return shifted_right<2 * kT - 6>(words[word_of_two_bits(kUpper, kFour)]);
  if constexpr (kBits == 1) return shifted_right<kT + 4 * kFour - 7>(words[kUpper]);
  if constexpr (kBits == 3)
    return (shifted_right<2 * kT - 5>(words[word_of_two_bits(kUpper, kFour)]) & 0x60606060u) |
           (shifted_right<2 * kT + kFour - 7>(words[4 + kUpper]) & 0x80808080u);
}

/// Bytes of levels. offset: 128 - zero in each byte, so that no byte borrows from the next.
__device__ __forceinline__ uint32_t levels_of(uint32_t codes, uint32_t step, uint32_t offset) {
  return (codes * step + offset) ^ 0x80808080u;
}
__device__ __forceinline__ uint32_t offset_of(uint32_t zero) { return 0x80808080u - zero * 0x01010101u; }

/// Operand A of a chunk: four registers for each 32 columns.
template <class S, int kFirst>
__device__ __forceinline__ void unpack(const uint32_t (&words)[2 * S::kBits], uint32_t step,
                                       const uint32_t (&offset)[2], uint32_t (&a)[4 * S::kSteps]) {
  for_each<4 * S::kSteps>([&](auto index) {
    constexpr int kI = decltype(index)::value, kT = kFirst + kI / 4, kFour = kI / 2 % 2, kUpper = kI % 2;
    if constexpr (S::kTop) {
      constexpr uint32_t kMask = (0x100u - (0x100u >> S::kBits)) * 0x01010101u;
      a[kI] = (top_codes_of<S::kBits, kT, kFour, kUpper>(words) & kMask) ^ offset[0];
    } else {
      a[kI] = levels_of(codes_of<S::kBits, kT, kFour, kUpper>(words), step, offset[kUpper]);
    }
  });
}

template <class S>
__device__ __forceinline__ void copy_tiles(const A8Params& p, const Storage<S>& at) {
  Position<S::kStages> here;
  const uint32_t bytes = S::kXBytes + S::kWordBytes + S::kScaleBytes + (p.has_zeros ? S::kZeroBytes : 0);
  for (int t = blockIdx.x; t < p.row_tiles * p.token_tiles; t += gridDim.x) {
    const Tile tile = tile_of<S>(p, t);
    for (int k = 0; k < p.column_bricks; ++k, here.next()) {
      wait_for(at.empty(here.slot), here.round ^ 1);
      const uint32_t full = at.full(here.slot);
      arrive_expecting(full, bytes);
      copy_box(at.x(here.slot), p.x, k * kBrickColumns, tile.token, full);
      copy_box(at.words(here.slot), p.words, k * S::kBrickWords, tile.row / kBrickRows, full);
      if constexpr (!S::kWholeRow) {
        const int column = ((4 * k) >> p.group_shift) * 8;
        copy_box(at.scales(here.slot), p.scales, column, tile.row / kBrickRows, full);
        if (p.has_zeros) copy_box(at.zeros(here.slot), p.zeros, column, tile.row / kBrickRows, full);
      }
    }
  }
}

/// A warpgroup's tile of Y^T.
template <class S>
class Math {
 public:
  __device__ __forceinline__ Math(const A8Params& p, const Storage<S>& at)
      : p_(p), at_(at), group_(threadIdx.x / 128), warp_(threadIdx.x / 32 % 4), lane_(threadIdx.x % 32) {}

  __device__ __forceinline__ void run() {
    for (int t = blockIdx.x; t < p_.row_tiles * p_.token_tiles; t += gridDim.x) {
      tile_ = tile_of<S>(p_, t);
      if constexpr (S::kWholeRow) {
        whole_rows();
      } else {
        in_chunks();
      }
    }
  }

 private:
  static constexpr int kPartNumbers = S::kTokens / 2 / S::kParts;

  __device__ __forceinline__ int brick() const { return group_ * 4 + warp_; }
  __device__ __forceinline__ void load(uint32_t (&words)[2 * S::kBits]) const {
    load_words<S::kBits>(words, at_.words(here_.slot) + brick() * S::kBrickWords * 4, lane_);
  }
  __device__ __forceinline__ void add_products(int (&sums)[kPartNumbers], const uint32_t (&a)[4 * S::kSteps],
                                               int first_segment, int part, bool go_on) const {
    const uint64_t b = operand_b(at_.x(here_.slot)) + part * (S::kTokens / S::kParts) * 8 + 2 * first_segment;
    begin_products();
#pragma unroll
    for (int k = 0; k < S::kSteps; ++k) add_product(sums, a + 4 * k, b + 2 * k, go_on || k > 0);
    commit_products();
  }
  __device__ __forceinline__ void release(int stage) const {
    if (lane_ == 0) arrive(at_.empty(stage));
  }
  static __device__ __forceinline__ void promote(const int (&sums)[kPartNumbers], float2 scale, float* total) {
#pragma unroll
    for (int i = 0; i < kPartNumbers; ++i)
      total[i] = __fmaf_rn(i & 2 ? scale.y : scale.x, static_cast<float>(sums[i]), total[i]);
  }

  /// A stage's parts follow each other through two accumulators: while the tensor cores fill one, the other is added
  /// up. At a stage's end none is left in flight (over the loop's edge ptxas would make all of them wait).
  __device__ __forceinline__ void in_chunks() {
    float total[S::kTokens / 2];
#pragma unroll
    for (int i = 0; i < S::kTokens / 2; ++i) total[i] = 0;
    for (int k = 0; k < p_.column_bricks; ++k, here_.next()) {
      wait_for(at_.full(here_.slot), here_.round);
      int sums[2][kPartNumbers];
      float2 scale{0, 0};
      uint32_t words[2 * S::kBits];
      for_each<S::kChunks>([&](auto chunk) {
        constexpr int kChunk = decltype(chunk)::value;
        if constexpr (kChunk == 0) load(words);
        const int pair = (brick() * S::kChunks + kChunk) * 8 + lane_ / 4;
        const float2 next_scale = pair_of(load_shared(at_.scales(here_.slot) + 4 * pair), p_.scales_are_half);
        uint32_t offset[2] = {p_.zero_bytes, p_.zero_bytes};
        if (p_.has_zeros) {
          const uint32_t z = load_shared_half(at_.zeros(here_.slot) + 2 * pair);
          offset[0] = offset_of(z & 0xff), offset[1] = offset_of(z >> 8);
        }
        uint32_t a[4 * S::kSteps];
        unpack<S, kChunk * S::kSteps>(words, p_.step, offset, a);
        for_each<S::kParts>([&](auto index) {
          constexpr int kPart = decltype(index)::value, kOther = (kPart + 1) % 2;
          add_products(sums[kPart % 2], a, kChunk * S::kSteps, kPart, false);
          if constexpr (kChunk > 0 || kPart > 0) wait_for_products<1>();
          if constexpr (kChunk > 0 || kPart > 0) keep(sums[kOther]);
          if constexpr (kPart > 0) {
            promote(sums[kOther], next_scale, total + (kPart - 1) * kPartNumbers);
          } else if constexpr (kChunk > 0) {
            promote(sums[kOther], scale, total + (S::kParts - 1) * kPartNumbers);
          }
        });
        scale = next_scale;
      });
      wait_for_products<0>();
      keep(sums[1]);
      release(here_.slot);
      promote(sums[1], scale, total + (S::kParts - 1) * kPartNumbers);
    }
    store(total);
  }

  /// Sums of whole rows stay integers. Two stages a turn, so that one's weights are unpacked beside the other's
  /// products.
  __device__ __forceinline__ void whole_rows() {
    int sums[S::kParts][kPartNumbers];
    uint32_t offset[2] = {p_.zero_bytes, p_.zero_bytes}, words[2 * S::kBits], a[2][4 * S::kSteps];
    const int row_brick = tile_.row / kBrickRows + brick();
    const bool inside = row_brick < p_.row_bricks;
    if (p_.has_zeros && inside) {
      const uint32_t z = p_.row_zeros[row_brick * 8 + lane_ / 4];
      offset[0] = offset_of(z & 0xff), offset[1] = offset_of(z >> 8);
    }
    int before = 0;
    for (int k = 0; k < p_.column_bricks; k += 2)
      for_each<2>([&](auto turn) {
        constexpr int kTurn = decltype(turn)::value;
        if (k + kTurn >= p_.column_bricks) return;
        wait_for(at_.full(here_.slot), here_.round);
        load(words);
        unpack<S, 0>(words, p_.step, offset, a[kTurn]);
        for_each<S::kParts>([&](auto part) {
          constexpr int kPart = decltype(part)::value;
          add_products(sums[kPart], a[kTurn], 0, kPart, k + kTurn > 0);
        });
        wait_for_products<S::kParts>();  // all of the stage before
        if (k + kTurn > 0) release(before);
        before = here_.slot;
        here_.next();
      });
    wait_for_products<0>();
#pragma unroll
    for (int i = 0; i < S::kParts; ++i) keep(sums[i]);
    release(before);
    float2 scale{0, 0};
    if (inside) scale = pair_of(p_.row_scales[row_brick * 8 + lane_ / 4], p_.scales_are_half);
    float total[S::kTokens / 2];
#pragma unroll
    for (int i = 0; i < S::kTokens / 2; ++i)
      total[i] = (i & 2 ? scale.y : scale.x) * static_cast<float>(sums[i / kPartNumbers][i % kPartNumbers]);
    store(total);
  }

  __device__ __forceinline__ uint32_t halves(float a, float b) const {
    uint32_t bits;
    if (p_.y_is_half) {
      const __half2 v = __floats2half2_rn(a, b);
      bits = *reinterpret_cast<const uint32_t*>(&v);
    } else {
      const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
      bits = *reinterpret_cast<const uint32_t*>(&v);
    }
    return bits;
  }

  /// The warpgroup's 64 rows: tokens' scales, bias, [rows][tokens] -> [tokens][rows].
  __device__ __forceinline__ void store(const float (&total)[S::kTokens / 2]) const {
    const uint32_t out = at_.outputs + group_ * S::kOutBytes;
    const int first_row = tile_.row + group_ * 64, row = first_row + warp_ * 16 + lane_ / 4;
    float bias[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (p_.bias && row + 8 * i < p_.num_rows) bias[i] = pair_of(p_.bias[row + 8 * i], p_.y_is_half).x;
    warpgroup_barrier(1 + group_);  // the outputs before these have left
    // Matrices of 8 rows x 8 tokens: rows g and g + 8 of tokens 8 j, then of 8 (j + 1).
    const int lane_token = lane_ / 16 * 8 + lane_ % 8, lane_row = warp_ * 16 + lane_ / 8 % 2 * 8;
    const uint32_t to = out + (lane_token * S::kOutStride + lane_row) * 2;
#pragma unroll
    for (int j = 0; j < S::kTokens / 8; j += 2) {
      uint32_t packed[4];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const int token = tile_.token + 8 * (j + n) + lane_ % 4 * 2;
        const float s0 = token < p_.num_tokens ? p_.token_scales[token] * p_.factor : 0;
        const float s1 = token + 1 < p_.num_tokens ? p_.token_scales[token + 1] * p_.factor : 0;
        const float* const t = total + 4 * (j + n);
        packed[2 * n] = halves(__fadd_rn(__fmul_rn(t[0], s0), bias[0]), __fadd_rn(__fmul_rn(t[1], s1), bias[0]));
        packed[2 * n + 1] = halves(__fadd_rn(__fmul_rn(t[2], s0), bias[1]), __fadd_rn(__fmul_rn(t[3], s1), bias[1]));
      }
      store_transposed(to + j * 8 * S::kOutStride * 2, packed[0], packed[1], packed[2], packed[3]);
    }
    warpgroup_barrier(1 + group_);
    store_outputs<S::kTokens, S::kOutStride>(p_, out, tile_.token, first_row, warp_ * 32 + lane_);
  }

  const A8Params& p_;
  const Storage<S> at_;
  const int group_, warp_, lane_;
  Position<S::kStages> here_;
  Tile tile_{};
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) a8_kernel(const __grid_constant__ A8Params p) {
  extern __shared__ uint8_t shared[];
  const Storage<S> at(shared_address(shared));
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      init_barrier(at.full(i), 1);
      init_barrier(at.empty(i), 4 * S::kWarpgroups);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x >= 128 * S::kWarpgroups) {
    give_registers<S::kCopyRegisters>();
    if (threadIdx.x == 128 * S::kWarpgroups) copy_tiles<S>(p, at);
  } else {
    take_registers<S::kMathRegisters>();
    Math<S>(p, at).run();
  }
}

}  // namespace satin::kernels::a8
