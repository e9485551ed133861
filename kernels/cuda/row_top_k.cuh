// The k largest of a row in one pass over it, by one block, together with a companion of each (the student's logit).
//
// Values larger than a threshold are collected; when a warp's slots may not hold another tile, the block keeps the k
// best and raises the threshold to the k-th. Of V values in random order about k ln(V / kSlots) are collected after the
// first kSlots. Ties go to the lower id: ids rise from tile to tile, so what equals the threshold later is not needed.
// Slots are filled in a fixed order, so that sums over them repeat to the bit.
#pragma once
#include "kernels/cuda/fake_quant_device.cuh"
#include "kernels/logit_losses_math.h"

namespace satin::kernels {

constexpr int kWarps = kThreads / kWarp;

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
SATIN_INLINE float of_ordered(uint32_t key) { return float_of(key >> 31 ? key & 0x7fffffffu : ~key); }
SATIN_INLINE double of_ordered(uint64_t key) {
  const uint64_t bits = key >> 63 ? key & ~(uint64_t{1} << 63) : ~key;
  double x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

/// W: values of a tile that a thread holds, neighbours in the row.
template <class S, int W>
class RowTopK {
 public:
  static constexpr int kTile = kThreads * W;  ///< values that one call of offer() looks at

  struct Storage {
    S z[kMaxTopK + 2 * kTile], s[kMaxTopK + 2 * kTile];
    int id[kMaxTopK + 2 * kTile];
    int warp_counts[kWarps];
  };

  /// excluded: values that are never taken: -inf and below, or none.
  __device__ RowTopK(Storage& storage, int k, bool exclude_infinity)
      : at_(storage), k_(k), open_(!exclude_infinity), threshold_(kNegativeInfinity<S>) {}

  /// Takes what may belong to the k largest out of z (and s), leaving -inf; first_id: of z[0]. Values of ids from
  /// `num_ids` on are left alone. dropped(z, s): called for what was taken before and turned out not to belong.
  /// Called by every thread of the block.
  template <class Dropped>
  __device__ __forceinline__ void offer(S* z, S* s, int first_id, int num_ids, const Dropped& dropped) {
    const int lane = threadIdx.x % kWarp, slots = slots_of_warp();
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const bool take = first_id + j < num_ids && (!(z[j] <= threshold_) || open_);
      const unsigned takers = __ballot_sync(0xffffffffu, take);
      if (takers == 0) continue;
      if (take) {
        const int slot = slots + taken_ + __popc(takers & ((1u << lane) - 1));
        at_.z[slot] = z[j];
        at_.s[slot] = s[j];
        at_.id[slot] = first_id + j;
        z[j] = s[j] = kNegativeInfinity<S>;
      }
      taken_ += __popc(takers);
    }
    if (__syncthreads_or(taken_ > kWarp * W)) keep_best(dropped);
  }

  /// After the last tile. The k largest, or all if there are fewer, are then in slots [0, size()), in a fixed order.
  template <class Dropped>
  __device__ void finish(const Dropped& dropped) {
    keep_best(dropped);
  }
  __device__ int size() const { return kept_; }

 private:
  static constexpr int kWarpSlots = 2 * kWarp * W;
  __device__ static int slots_of_warp() { return kMaxTopK + static_cast<int>(threadIdx.x) / kWarp * kWarpSlots; }

  /// body(slot) for every slot that holds a value, each by one thread.
  template <class Body>
  __device__ void for_slots(const Body& body) const {
    for (int slot = threadIdx.x; slot < kept_; slot += kThreads) body(slot);
    for (int i = threadIdx.x; i < kWarps * kWarpSlots; i += kThreads)
      if (i % kWarpSlots < at_.warp_counts[i / kWarpSlots]) body(kMaxTopK + i);
  }
  template <class Predicate>
  __device__ int count(const Predicate& predicate) const {
    int own = 0;
    for_slots([&](int slot) { own += predicate(slot); });
    return block_sum(own);
  }
  __device__ static int block_sum(int value) {
    for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    __shared__ int sums[kWarps];
    __syncthreads();  // an earlier call's sums have been read
    if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = value;
    __syncthreads();
    int sum = 0;
    for (int i = 0; i < kWarps; ++i) sum += sums[i];
    return sum;
  }

  /// The largest bound, bit by bit, that still leaves `enough(bound)`; stops early where `exact` says so.
  template <class Key, class Enough>
  __device__ static Key bisect(const Enough& enough) {
    Key bound = 0;
    for (int bit = 8 * sizeof(Key) - 1; bit >= 0; --bit) {
      const Key next = bound | Key{1} << bit;
      const int verdict = enough(next);
      if (verdict >= 0) bound = next;
      if (verdict == 0) break;
    }
    return bound;
  }

  template <class Dropped>
  __device__ void keep_best(const Dropped& dropped) {
    if (threadIdx.x % kWarp == 0) at_.warp_counts[threadIdx.x / kWarp] = taken_;
    __syncthreads();
    using Key = decltype(ordered(S{}));
    Key least = 0;        // keys above it are kept,
    unsigned border = 0;  // and those that equal it with an id below this one
    const int held = count([](int) { return true; });
    if (held > k_) {
      int above = 0;
      least = bisect<Key>([&](Key bound) {
        above = count([&](int slot) { return ordered(at_.z[slot]) >= bound; });
        return above - k_;
      });
      border = ~0u;
      const int ties = count([&](int slot) { return ordered(at_.z[slot]) == least; });
      const int needed = k_ - count([&](int slot) { return ordered(at_.z[slot]) > least; });
      if (ties > needed)
        border = bisect<unsigned>([&](unsigned bound) {
          return needed - count([&](int slot) {
                   return ordered(at_.z[slot]) == least && static_cast<unsigned>(at_.id[slot]) < bound;
                 });
        });
      threshold_ = of_ordered(least);
      open_ = false;
    } else {
      border = ~0u;  // all are kept
    }
    move(least, border, dropped);
  }

  /// Moves what is kept to the front, in the order of the slots.
  template <class Key, class Dropped>
  __device__ void move(Key least, unsigned border, const Dropped& dropped) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int old_kept = kept_, rounds_kept = (old_kept + kThreads - 1) / kThreads;
    __shared__ int counts[kWarps];
    kept_ = 0;
    for (int round = 0; round < rounds_kept + 2 * W; ++round) {
      const int i = (round < rounds_kept ? round : round - rounds_kept) * kThreads + static_cast<int>(threadIdx.x);
      const int slot = round < rounds_kept ? i : kMaxTopK + i;
      const bool holds = round < rounds_kept ? i < old_kept : i % kWarpSlots < at_.warp_counts[i / kWarpSlots];
      S z = 0, s = 0;
      int id = 0;
      if (holds) {
        z = at_.z[slot];
        s = at_.s[slot];
        id = at_.id[slot];
      }
      const Key key = ordered(z);
      const bool keep = holds && (key > least || (key == least && static_cast<unsigned>(id) < border));
      if (holds && !keep) dropped(z, s);
      const unsigned keepers = __ballot_sync(0xffffffffu, keep);
      if (lane == 0) counts[warp] = __popc(keepers);
      __syncthreads();
      int before = 0, all = 0;
      for (int w = 0; w < kWarps; ++w) {
        before += w < warp ? counts[w] : 0;
        all += counts[w];
      }
      if (keep) {
        const int to = kept_ + before + __popc(keepers & ((1u << lane) - 1));
        at_.z[to] = z;
        at_.s[to] = s;
        at_.id[to] = id;
      }
      kept_ += all;
      __syncthreads();  // counts have been read
    }
    taken_ = 0;
  }

  Storage& at_;
  int k_, kept_ = 0;
  int taken_ = 0;  ///< of the warp, since the last keep_best()
  bool open_;      ///< everything is taken: fewer than k have been seen
  S threshold_;
};

}  // namespace satin::kernels
