// The k largest of a row in one pass over it, by one block, together with a companion of each (the student's logit).
//
// Values larger than a threshold are collected; when a warp has collected kCollected, the block (every kTilesACheck
// tiles) ranks what it holds, keeps the k best and raises the threshold to the k-th. The first threshold comes from the
// first tile: the k-th best of its threads' best values has at least k values at or above it. Ties go to the lower id:
// ids rise from tile to tile, so what equals a threshold later is not needed. Slots are filled in a fixed order, and
// ranks are a function of the values and ids, so that sums over the k repeat to the bit.
#pragma once
#include "kernels/cuda/log_sum.cuh"

namespace satin::kernels {

/// Unsigned keys in the order of the values (-0 and +0 are one, NaN is above everything).
SATIN_INLINE uint32_t ordered(float x) {
  const uint32_t bits = bits_of(x + 0.0f);
  return x != x ? 0xffffffffu : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
SATIN_INLINE uint64_t ordered(double x) {
  uint64_t bits;
  x += 0.0;
  memcpy(&bits, &x, sizeof(bits));
  return x != x ? ~uint64_t{0} : bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}
/// The next value below x, which is finite or infinity. Below zero (of either sign) it is the first negative number:
/// one key further down, as -0 has a pattern and no key of its own.
SATIN_INLINE float next_below(float x) {
  const uint32_t above = ordered(x), key = above - (above == 0x80000000u ? 2 : 1);
  return float_of(key >> 31 ? key & 0x7fffffffu : ~key);
}
SATIN_INLINE double next_below(double x) {
  const uint64_t zero = uint64_t{1} << 63, above = ordered(x), key = above - (above == zero ? 2 : 1);
  const uint64_t bits = key >> 63 ? key & ~zero : ~key;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

/// W: values of a tile that a thread holds, neighbours in the row.
template <class S, int W>
class RowTopK {
 public:
  static constexpr int kCollected = 32;   ///< of a warp, that make the block rank what it holds
  static constexpr int kTilesACheck = 2;  ///< the block's warps meet so often; between, each runs ahead
  static constexpr int kWarpSlots = kCollected + kTilesACheck * kWarp * W;  ///< what tiles may add until then

  struct Storage {
    S z[2][kMaxTopK], s[2][kMaxTopK];  ///< the best so far, in falling order, and a copy to rank into
    int id[2][kMaxTopK];
    S new_z[kWarps][kWarpSlots], new_s[kWarps][kWarpSlots];  ///< collected since
    int new_id[kWarps][kWarpSlots];
    int counts[kWarps];
    S threshold;
  };

  /// exclude_infinity: -inf is never taken.
  __device__ RowTopK(Storage& storage, int k, bool exclude_infinity)
      : at_(storage), k_(k), open_(!exclude_infinity), threshold_(kNegativeInfinity<S>) {}

  /// Takes what may belong to the k largest out of z (and s), leaving -inf; first_id: of z[0]. Values of ids from
  /// `num_ids` on are left alone. dropped(z, s): called for what was taken before and turned out not to belong.
  /// Called by every thread of the block.
  template <class Dropped>
  __device__ __forceinline__ void offer(S* z, S* s, int first_id, int num_ids, const Dropped& dropped) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    if (is_first_) set_first_threshold(z, first_id, num_ids);
    const auto wanted = [&](int j) { return first_id + j < num_ids && (!(z[j] <= threshold_) || open_); };
    bool any = false;
#pragma unroll
    for (int j = 0; j < W; ++j) any |= wanted(j);
    const bool warp_takes = __ballot_sync(0xffffffffu, any) != 0;  // rarely, once the threshold is high
#pragma unroll
    for (int j = 0; j < W; ++j) {
      if (!warp_takes) break;
      const bool take = wanted(j);
      const unsigned takers = __ballot_sync(0xffffffffu, take);
      if (takers == 0) continue;
      if (take) {
        const int slot = taken_ + __popc(takers & ((1u << lane) - 1));
        at_.new_z[warp][slot] = z[j];
        at_.new_s[warp][slot] = s[j];
        at_.new_id[warp][slot] = first_id + j;
        z[j] = s[j] = kNegativeInfinity<S>;
      }
      taken_ += __popc(takers);
    }
    if (++unchecked_ < kTilesACheck) return;
    unchecked_ = 0;
    if (__syncthreads_or(taken_ > kCollected)) keep_best(dropped);
  }

  /// After the last tile: the k largest are there, or all if there are fewer. Called by every thread of the block.
  template <class Dropped>
  __device__ void finish(const Dropped& dropped) {
    keep_best(dropped);
  }
  /// In falling order, ties by rising id: 0 <= i < size().
  __device__ int size() const { return kept_; }
  __device__ S z(int i) const { return at_.z[side_][i]; }
  __device__ S s(int i) const { return at_.s[side_][i]; }
  __device__ int id(int i) const { return at_.id[side_][i]; }

 private:
  __device__ __forceinline__ void set_first_threshold(const S* z, int first_id, int num_ids) {
    is_first_ = false;
    if (k_ > kThreads) return;
    S best = kNegativeInfinity<S>;
#pragma unroll
    for (int j = 0; j < W; ++j)
      if (first_id + j < num_ids && best < z[j]) best = z[j];
    S* bests = at_.z[1];  // not in use yet
    static_assert(kMaxTopK >= kThreads);
    bests[threadIdx.x] = best;
    if (threadIdx.x == 0) at_.threshold = kNegativeInfinity<S>;
    __syncthreads();
    int rank = 0;
    for (int i = 0; i < kThreads; ++i) {
      const S other = bests[i];
      rank += other > best || (other == best && i < static_cast<int>(threadIdx.x));
    }
    if (rank == k_ - 1 && best > kNegativeInfinity<S>) at_.threshold = best;
    __syncthreads();
    if (at_.threshold == kNegativeInfinity<S>) return;
    threshold_ = next_below(at_.threshold);  // the value itself may belong
    open_ = false;
  }

  /// Ranks what is held and keeps the k best.
  template <class Dropped>
  __device__ void keep_best(const Dropped& dropped) {
    if (threadIdx.x % kWarp == 0) at_.counts[threadIdx.x / kWarp] = taken_;
    __syncthreads();
    int held = kept_;
    for (int warp = 0; warp < kWarps; ++warp) held += at_.counts[warp];
    for (int i = threadIdx.x; i < held; i += kThreads) {
      S z, s;
      int id, slot = i - kept_, warp = 0;
      if (i < kept_) {
        z = at_.z[side_][i];
        s = at_.s[side_][i];
        id = at_.id[side_][i];
      } else {
        while (slot >= at_.counts[warp]) slot -= at_.counts[warp++];
        z = at_.new_z[warp][slot];
        s = at_.new_s[warp][slot];
        id = at_.new_id[warp][slot];
      }
      const auto key = ordered(z);
      int rank = 0;
      const auto meet = [&](S other_z, int other_id) {
        const auto other = ordered(other_z);
        rank += other > key || (other == key && other_id < id);
      };
      for (int j = 0; j < kept_; ++j) meet(at_.z[side_][j], at_.id[side_][j]);
      for (int w = 0; w < kWarps; ++w)
        for (int j = 0; j < at_.counts[w]; ++j) meet(at_.new_z[w][j], at_.new_id[w][j]);
      if (rank < k_) {
        at_.z[1 - side_][rank] = z;
        at_.s[1 - side_][rank] = s;
        at_.id[1 - side_][rank] = id;
      } else {
        dropped(z, s);
      }
    }
    __syncthreads();
    side_ = 1 - side_;
    kept_ = held < k_ ? held : k_;
    taken_ = 0;
    if (kept_ < k_) return;
    threshold_ = at_.z[side_][k_ - 1];
    open_ = false;
  }

  Storage& at_;
  int k_, kept_ = 0, side_ = 0;
  int taken_ = 0;      ///< of the warp, since the last keep_best()
  int unchecked_ = 0;  ///< tiles since the warps met
  bool is_first_ = true;
  bool open_;  ///< everything is taken: fewer than k have been seen
  S threshold_;
};

}  // namespace satin::kernels
