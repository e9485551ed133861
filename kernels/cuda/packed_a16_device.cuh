// What a block of packed_a16.cu does: one warp copies tiles, warpgroups make numbers of weights, multiply and store.
#pragma once
#include <cuda.h>

#include <algorithm>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/packed_device.cuh"
#include "kernels/cuda/packed_fragments.cuh"
#include "kernels/cuda/packed_tiles.cuh"

namespace satin::kernels::a16 {

struct A16Params {
  CUtensorMap x, words, scales, zeros, outputs;
  LevelLine lines[4];  // of a brick's segments
  uint16_t* y;
  const uint16_t* bias;
  int num_tokens, num_rows, column_bricks;
  int group_shift;  // segment T of brick b lies in group (4 b + T) >> group_shift
  int brick_groups;
  int row_tiles, token_tiles;
  int splits;     // blocks of a cluster, which share a tile's columns; more than one: a tile a cluster
  uint32_t zero;  // of all groups, where has_zeros is false
  bool has_zeros;
  bool copies_out;  // y by the copy engine
};

constexpr int kSlotColumns = 64;  // of x, 128 bytes
constexpr int kOutTokens = 32;    // that are stored at once where the copy engine does not

/// kZeros: zeros are not part of the lines (packed_fragments.cuh).
template <int kNumBits, bool kHasZeros, int kNumTokens, int kNumWarpgroups>
struct Shape {
  static constexpr int kBits = kNumBits, kTokens = kNumTokens, kWarpgroups = kNumWarpgroups;
  static constexpr bool kZeros = kHasZeros;
  static constexpr int kRows = 64 * kWarpgroups, kBricks = kRows / kBrickRows;
  static constexpr int kBrickWords = 2 * kBits * kLanes;
  // Slots: of 64 columns of x, and of a column of bricks with scales and zeros for 4 groups.
  static constexpr int kXBytes = kTokens * 2 * kSlotColumns, kWordBytes = kBricks * kBrickWords * 4;
  static constexpr int kScaleBytes = kBricks * 4 * 32, kZeroBytes = kScaleBytes / 2;
  static constexpr int kBrickBytes = kWordBytes + kScaleBytes + kZeroBytes;
  // A warpgroup's outputs: [kTokens][64 rows], swizzled, for the copy engine, where there is room for them; else
  // [kOutTokens][64 rows, 8 of padding].
  static constexpr bool kCopiesOut = kBits < 8;
  static constexpr int kOutStride = 72, kOutBytes = kCopiesOut ? kTokens * 128 : kOutTokens * kOutStride * 2;
  static constexpr int kFixedBytes = 3 * 1024 + kWarpgroups * kOutBytes;  // twice alignment, barriers
  static constexpr int kFreeBytes = kSharedBytes - kFixedBytes;
  static constexpr int kBrickSlots = std::clamp(kFreeBytes / (2 * kXBytes + kBrickBytes), 3, 8);
  static constexpr int kXSlots = std::min(2 * kBrickSlots, (kFreeBytes - kBrickSlots * kBrickBytes) / kXBytes);
  static constexpr int kBytes = kFixedBytes + kXSlots * kXBytes + kBrickSlots * kBrickBytes;
  static constexpr int kThreads = 128 * (kWarpgroups + 1);
  static constexpr int kMathRegisters = 240, kCopyRegisters = 24;
  // of a split tile, over the slots: [kTokens][kRows, 4 of padding], fp32
  static constexpr int kPartStride = kRows + 4;
  static_assert(kXSlots >= 4 && kBrickBytes % 128 == 0);
  static_assert(kTokens * kPartStride * 4 <= kXSlots * kXBytes + kBrickSlots * kBrickBytes);
};

/// Columns of bricks of a block.
struct Columns {
  int begin, end;
  __device__ __forceinline__ explicit Columns(const A16Params& p)
      : begin(part(p, blockIdx.x % p.splits)), end(part(p, blockIdx.x % p.splits + 1)) {}

 private:
  static __device__ __forceinline__ int part(const A16Params& p, int i) { return p.column_bricks * i / p.splits; }
};

/// Shared memory of a block.
template <class S>
struct Storage {
  uint32_t base;
  __device__ __forceinline__ explicit Storage(uint32_t shared) : base((shared + 1023) & ~1023u) {}
  __device__ __forceinline__ uint32_t x(int slot) const { return base + slot * S::kXBytes; }
  __device__ __forceinline__ uint32_t words(int slot) const {
    return base + S::kXSlots * S::kXBytes + slot * S::kBrickBytes;
  }
  __device__ __forceinline__ uint32_t scales(int slot) const { return words(slot) + S::kWordBytes; }
  __device__ __forceinline__ uint32_t zeros(int slot) const { return scales(slot) + S::kScaleBytes; }
  __device__ __forceinline__ uint32_t barriers() const { return words(S::kBrickSlots); }
  __device__ __forceinline__ uint32_t x_full(int slot) const { return barriers() + 16 * slot; }
  __device__ __forceinline__ uint32_t x_empty(int slot) const { return barriers() + 16 * slot + 8; }
  __device__ __forceinline__ uint32_t bricks_full(int slot) const { return x_full(S::kXSlots + slot); }
  __device__ __forceinline__ uint32_t bricks_empty(int slot) const { return x_empty(S::kXSlots + slot); }
  __device__ __forceinline__ uint32_t outputs(int group) const {
    return ((barriers() + 2047) & ~1023u) + group * S::kOutBytes;
  }
};

template <class S>
__device__ __forceinline__ void copy_tiles(const A16Params& p, const Storage<S>& at) {
  Position<S::kXSlots> x;
  Position<S::kBrickSlots> bricks;
  const uint32_t pairs = S::kBricks * 8 * p.brick_groups;  // of 4 bytes of scales, 2 of zeros
  const uint32_t brick_bytes = S::kWordBytes + (p.has_zeros ? 6 : 4) * pairs;
  const Columns columns(p);
  for (int t = blockIdx.x / p.splits; t < p.row_tiles * p.token_tiles; t += gridDim.x / p.splits) {
    const Tile tile = tile_of<S>(p, t);
    const int row_brick = tile.row / kBrickRows;
    for (int k = columns.begin; k < columns.end; ++k, bricks.next()) {
      wait_for(at.bricks_empty(bricks.slot), bricks.round ^ 1);
      const uint32_t full = at.bricks_full(bricks.slot);
      arrive_expecting(full, brick_bytes);
      copy_box(at.words(bricks.slot), p.words, k * S::kBrickWords / 2, row_brick, full);
      const int pair = ((4 * k) >> p.group_shift) * 8;
      copy_box(at.scales(bricks.slot), p.scales, pair, row_brick, full);
      if (p.has_zeros) copy_box(at.zeros(bricks.slot), p.zeros, pair, row_brick, full);
#pragma unroll
      for (int half = 0; half < 2; ++half, x.next()) {
        wait_for(at.x_empty(x.slot), x.round ^ 1);
        arrive_expecting(at.x_full(x.slot), S::kXBytes);
        copy_box(at.x(x.slot), p.x, k * kBrickColumns + half * kSlotColumns, tile.token, at.x_full(x.slot));
      }
    }
  }
}

/// A warpgroup's tile of Y^T.
template <class S>
class Math {
 public:
  __device__ __forceinline__ Math(const A16Params& p, const Storage<S>& at)
      : p_(p),
        at_(at),
        group_(threadIdx.x / 128),
        warp_(threadIdx.x / 32 % 4),
        lane_(threadIdx.x % 32),
        quad_lane_(lane_),
        columns_(p) {}

  __device__ __forceinline__ void run() {
    for (int t = blockIdx.x / p_.splits; t < p_.row_tiles * p_.token_tiles; t += gridDim.x / p_.splits) {
      tile_ = tile_of<S>(p_, t);
      multiply();
    }
    if (S::kCopiesOut && copies()) wait_for_stores();
  }

 private:
  /// Operand A of half a brick's columns, 4 times 16.
  template <int kHalf>
  __device__ __forceinline__ void make_weights(const uint32_t (&words)[2 * S::kBits], uint32_t (&a)[16]) const {
    for_each<2>([&](auto index) {
      constexpr int kSegment = 2 * kHalf + decltype(index)::value;
      const int pair = ((group_ * 4 + warp_) * p_.brick_groups + (kSegment >> p_.group_shift)) * 8 + lane_ / 4;
      const uint32_t scales = load_shared(at_.scales(bricks_.slot) + 4 * pair);
      uint32_t zeros = p_.zero * 0x0101u;
      if constexpr (S::kZeros)
        if (p_.has_zeros) zeros = load_shared_half(at_.zeros(bricks_.slot) + 2 * pair);
      const RowZero<S::kBits> zero[2] = {RowZero<S::kBits>(zeros & 0xff), RowZero<S::kBits>(zeros >> 8)};
      const uint32_t scale[2] = {__byte_perm(scales, scales, 0x1010), __byte_perm(scales, scales, 0x3232)};
      for_each<8>([&](auto number) {
        constexpr int kI = decltype(number)::value, kStep = kI / 4, kPair = kI / 2 % 2, kRow = kI % 2;
        a[8 * decltype(index)::value + kI] = weights<S::kBits, S::kZeros, kSegment, kRow, kStep, kPair>(
            words, p_.lines[kSegment], zero[kRow], scale[kRow]);
      });
    });
  }
  __device__ __forceinline__ void release(uint32_t empty) const {
    if (lane_ == 0) arrive(empty);
  }

  /// While products of half a brick's columns run, the next half's weights are made, in the registers of the half
  /// before; so one group of products is always in flight.
  __device__ __forceinline__ void multiply() {
    float sums[S::kTokens / 2];
    uint32_t a[2][16];
    uint32_t before = 0;  // of the slot that products may still read
    const int first = columns_.begin;
    for (int k = first; k < columns_.end; ++k, bricks_.next()) {
      wait_for(at_.bricks_full(bricks_.slot), bricks_.round);
      uint32_t words[2 * S::kBits];
      load_words<S::kBits>(words, at_.words(bricks_.slot) + (group_ * 4 + warp_) * S::kBrickWords * 4, lane_);
      exchange_brick<S::kBits>(words, quad_lane_);
      for_each<2>([&](auto half) {
        constexpr int kHalf = decltype(half)::value;
        make_weights<kHalf>(words, a[kHalf]);
        wait_for(at_.x_full(x_.slot), x_.round);
        const uint64_t b = operand_b(at_.x(x_.slot));
        begin_products();
#pragma unroll
        for (int i = 0; i < 4; ++i) add_product(sums, a[kHalf] + 4 * i, b + 2 * i, k > first || kHalf > 0 || i > 0);
        commit_products();
        wait_for_products<1>();
        keep(a[1 - kHalf]);
        if (k > first || kHalf > 0) release(before);
        before = at_.x_empty(x_.slot);
        x_.next();
      });
      release(at_.bricks_empty(bricks_.slot));
    }
    wait_for_products<0>();
    keep(sums);
    release(before);
    if (p_.splits > 1) return add_up_and_store(sums);
    if constexpr (S::kCopiesOut)
      if (p_.copies_out) return copy_out(sums);
    store(sums);
  }

  /// One thread of a warpgroup asks the copy engine.
  __device__ __forceinline__ bool copies() const { return threadIdx.x % 128 == 0; }

  __device__ __forceinline__ void load_bias(float (&bias)[2]) const {
    const int row = tile_.row + group_ * 64 + warp_ * 16 + lane_ / 4;
#pragma unroll
    for (int i = 0; i < 2; ++i)
      bias[i] = p_.bias && row + 8 * i < p_.num_rows ? __uint_as_float(uint32_t{p_.bias[row + 8 * i]} << 16) : 0;
  }
  /// Of tokens 8 j ... 8 j + 15, as matrices of 8 rows x 8 tokens.
  static __device__ __forceinline__ void store_matrices(uint32_t to, const float* sums, const float (&bias)[2]) {
    uint32_t packed[4];
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const float* const s = sums + 4 * n;
      packed[2 * n] = bits_as<uint32_t>(__floats2bfloat162_rn(s[0] + bias[0], s[1] + bias[0]));
      packed[2 * n + 1] = bits_as<uint32_t>(__floats2bfloat162_rn(s[2] + bias[1], s[3] + bias[1]));
    }
    store_transposed(to, packed[0], packed[1], packed[2], packed[3]);
  }

  /// The warpgroup's 64 rows: bias, [rows][tokens] -> [tokens][rows], which leave while the next tile is multiplied.
  __device__ __forceinline__ void copy_out(const float (&sums)[S::kTokens / 2]) const {
    const uint32_t out = at_.outputs(group_);
    float bias[2];
    load_bias(bias);
    if (copies()) wait_for_stores();
    warpgroup_barrier(1 + group_);  // the outputs before these have left
    const int lane_token = lane_ / 16 * 8 + lane_ % 8, eight = warp_ * 2 + lane_ / 8 % 2;  // of rows
    const uint32_t to = out + lane_token * 128 + (eight ^ lane_ % 8) * 16;
#pragma unroll
    for (int j = 0; j < S::kTokens / 8; j += 2) store_matrices(to + j * 8 * 128, sums + 4 * j, bias);
    fence_copies();
    warpgroup_barrier(1 + group_);
    if (copies()) store_box(p_.outputs, tile_.row + group_ * 64, tile_.token, out);
  }

  /// Sums of the cluster's two blocks through shared memory, which nothing is copied to any more: each block adds up
  /// half of the tokens.
  __device__ __forceinline__ void add_up_and_store(const float (&sums)[S::kTokens / 2]) const {
    constexpr int kFours = S::kRows / 4;
    const auto place = [&](int token, int row) { return at_.base + (token * S::kPartStride + row) * 4; };
    cluster_barrier();  // the other warpgroup too has read its slots
    const int row = group_ * 64 + warp_ * 16 + lane_ / 4;
#pragma unroll
    for (int i = 0; i < S::kTokens / 2; ++i)
      store_shared(place(i / 4 * 8 + lane_ % 4 * 2 + i % 2, row + i % 4 / 2 * 8), sums[i]);
    cluster_barrier();
    constexpr int kThreads = 128 * S::kWarpgroups, kAtOnce = 4;
    static_assert(S::kTokens / 2 * kFours % (kThreads * kAtOnce) == 0);
    const int first = static_cast<int>(blockIdx.x) % 2 * (S::kTokens / 2);
#pragma unroll 1
    for (int begin = threadIdx.x; begin < S::kTokens / 2 * kFours; begin += kThreads * kAtOnce) {
      float4 parts[kAtOnce][2];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
#pragma unroll
        for (int block = 0; block < 2; ++block) {
          const int at = begin + i * kThreads;
          parts[i][block] = load_of_block(place(first + at / kFours, at % kFours * 4), block);
        }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int at = begin + i * kThreads;
        store_four(first + at / kFours, at % kFours * 4, parts[i][0], parts[i][1]);
      }
    }
    __syncwarp();
    cluster_barrier();  // a block's memory is there as long as others read it
  }

  /// Bias and two blocks' sums of four rows of a token, of the tile.
  __device__ __forceinline__ void store_four(int token, int row, float4 a, float4 b) const {
    const int first_row = tile_.row + row;
    if (tile_.token + token >= p_.num_tokens || first_row >= p_.num_rows) return;
    float y[4] = {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
    if (p_.bias)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (first_row + i < p_.num_rows) y[i] += __uint_as_float(uint32_t{p_.bias[first_row + i]} << 16);
    uint16_t* const to = p_.y + static_cast<int64_t>(tile_.token + token) * p_.num_rows + first_row;
    const uint32_t all[2] = {bits_as<uint32_t>(__floats2bfloat162_rn(y[0], y[1])),
                             bits_as<uint32_t>(__floats2bfloat162_rn(y[2], y[3]))};
    if (p_.num_rows % 4 == 0) {
      *reinterpret_cast<uint2*>(to) = {all[0], all[1]};
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (first_row + i < p_.num_rows) to[i] = static_cast<uint16_t>(all[i / 2] >> (16 * (i % 2)));
    }
  }

  /// The warpgroup's 64 rows: bias, [rows][tokens] -> [tokens][rows], some tokens at a time.
  __device__ __forceinline__ void store(const float (&sums)[S::kTokens / 2]) const {
    const uint32_t out = at_.outputs(group_);
    const int first_row = tile_.row + group_ * 64;
    float bias[2];
    load_bias(bias);
    // Matrices of 8 rows x 8 tokens: rows g and g + 8 of tokens 8 j, then of 8 (j + 1).
    const int lane_token = lane_ / 16 * 8 + lane_ % 8, lane_row = warp_ * 16 + lane_ / 8 % 2 * 8;
    const uint32_t to = out + (lane_token * S::kOutStride + lane_row) * 2;
#pragma unroll
    for (int pass = 0; pass < S::kTokens / kOutTokens; ++pass) {
      const int first_token = tile_.token + pass * kOutTokens;
      if (first_token >= p_.num_tokens) break;
      warpgroup_barrier(1 + group_);  // the outputs before these have left
#pragma unroll
      for (int j = 0; j < kOutTokens / 8; j += 2)
        store_matrices(to + j * 8 * S::kOutStride * 2, sums + 4 * (pass * kOutTokens / 8 + j), bias);
      warpgroup_barrier(1 + group_);
      store_outputs<kOutTokens, S::kOutStride>(p_, out, first_token, first_row, warp_ * 32 + lane_);
    }
  }

  const A16Params& p_;
  const Storage<S> at_;
  const int group_, warp_, lane_;
  const QuadLane quad_lane_;
  const Columns columns_;
  Position<S::kXSlots> x_;
  Position<S::kBrickSlots> bricks_;
  Tile tile_{};
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) a16_kernel(const __grid_constant__ A16Params p) {
  extern __shared__ uint8_t shared[];
  const Storage<S> at(shared_address(shared));
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kXSlots + S::kBrickSlots; ++i) {
      init_barrier(at.x_full(i), 1);
      init_barrier(at.x_empty(i), 4 * S::kWarpgroups);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x >= 128 * S::kWarpgroups) {
    if constexpr (S::kWarpgroups > 1) give_registers<S::kCopyRegisters>();  // one has enough by itself
    if (threadIdx.x == 128 * S::kWarpgroups) copy_tiles<S>(p, at);
  } else {
    if constexpr (S::kWarpgroups > 1) take_registers<S::kMathRegisters>();
    Math<S>(p, at).run();
  }
}

}  // namespace satin::kernels::a16
