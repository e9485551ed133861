// One new token over its cache: keys are dealt to the warps of a cluster of blocks, and what they found is brought
// together through the blocks' shared memory.
//
// A cluster has kHeads query heads of one key-value head, a warp one of them. A key is read by a team of D / 8 lanes
// (cached_rows.cuh); each team keeps a running maximum, sum and average (online softmax). There is little to compute
// and long to wait, so it is many warps with few keys each. Keys and values that are there already are asked for before
// the kernel before this one has ended (programmatic dependent launch). Integers cost more to make numbers of than to
// wait for: of these a warp has all kHeads heads. The order of sums stays what it is.
//
// Time on an H200 (32 heads of 8, 64 features, 512 places, bfloat16), one launch after the other. Predicted .3 us for
// the cache's bytes, 2 us for what waits on something else (launch .6, query and angles, softmax, cluster).
// Measured 3.9 us a sequence alone, 5.0 us for four together: instructions, about 780 a warp, issued by four warps a
// scheduler. Four heads a warp and four warps a block 5.7; clusters of 4: 3.4 and 11.0 us; of 8 with 8 warps: 4.1
// and 7.6 us.
#include <cooperative_groups.h>

#include "kernels/cached_attention.h"
#include "kernels/cuda/cached_rows.cuh"

namespace satin::kernels {
namespace {

constexpr int kMostBlocks = 8;  ///< of a cluster
constexpr int kMostWarps = 16;
constexpr int kAhead = 4;  ///< keys that a team asks for together

template <int kHeads, Stored kStored>
struct Cut {
  static constexpr int kParts = kMostWarps / kHeads;                      ///< warps that share a head's keys
  static constexpr int kEach = kStored == Stored::kNumbers ? 1 : kHeads;  ///< heads of a warp
  static constexpr int kWarps = kParts * kHeads / kEach, kThreads = 32 * kWarps;
};

struct Params {
  const uint16_t *q, *k, *v;
  const float *cos, *sin;
  const int64_t* positions;
  HeadRows keys, values;  ///< of the first head
  uint16_t* y;
  int64_t q_stride, k_stride, v_stride, places;
  int heads, kv_heads;
};

/// Running softmax of a head, and a lane's eight features of the average. What is fused is written so, here and in the
/// kernel: left to the compiler it might differ between formats.
struct Running {
  float most = -INFINITY, total = 0, sum[8] = {};

  /// Takes in what another has of the same features: it may have seen nothing.
  __device__ __forceinline__ void add(float other_most, float other_total, const float (&other)[8]) {
    const float both = fmaxf(most, other_most);
    const float mine = most == -INFINITY ? 0 : exp2f(most - both);
    const float theirs = other_most == -INFINITY ? 0 : exp2f(other_most - both);
    most = both;
    total = fmaf(total, mine, other_total * theirs);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = fmaf(sum[i], mine, other[i] * theirs);
  }
};

/// D features of a head, rotated, in shared memory; a warp together.
template <int kFeatures, bool kHalf>
__device__ __forceinline__ void rotate(const Params& p, const uint16_t* x, int64_t position, int lane, float* to) {
  constexpr int kPairs = kFeatures / 2;
#pragma unroll
  for (int i = lane; i < kPairs; i += kLanes) {
    const float a = number<kHalf>(x[i]), b = number<kHalf>(x[kPairs + i]);
    const float cos = p.cos[position * kPairs + i], sin = p.sin[position * kPairs + i];
    // Not fused: the bits of rope.h.
    to[i] = number<kHalf>(narrow<kHalf>(__fsub_rn(__fmul_rn(a, cos), __fmul_rn(b, sin))));
    to[kPairs + i] = number<kHalf>(narrow<kHalf>(__fadd_rn(__fmul_rn(b, cos), __fmul_rn(a, sin))));
  }
}

template <int kFeatures, int kHeads, bool kHalf, Stored kStored>
__global__ void __launch_bounds__(Cut<kHeads, kStored>::kThreads) attention_kernel(const Params p) {
  constexpr int kParts = Cut<kHeads, kStored>::kParts, kEach = Cut<kHeads, kStored>::kEach;
  constexpr int kWarps = Cut<kHeads, kStored>::kWarps, kThreads = Cut<kHeads, kStored>::kThreads;
  constexpr int kTeam = kFeatures / 8, kTeams = kLanes / kTeam;  // lanes a key; keys a warp
  let_dependents_start();
  namespace cg = cooperative_groups;
  const cg::cluster_group cluster = cg::this_cluster();
  cluster.barrier_arrive();  // at the wait for it all blocks have begun
  const int rank = static_cast<int>(cluster.block_rank()), blocks = static_cast<int>(cluster.num_blocks());
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes, lane = thread % kLanes;
  const int head = warp * kEach % kHeads, part = warp * kEach / kHeads;  // the warp's first, and its part of the keys
  const int team = lane / kTeam, in_team = lane % kTeam;
  const int sequence = static_cast<int>(blockIdx.z), first_head = static_cast<int>(blockIdx.y) * kHeads;
  const int group = p.heads / p.kv_heads, kv = first_head / group;
  const int64_t position = p.positions[sequence];
  const auto of_this_head = [&](const HeadRows& rows) -> HeadRows {
    const int64_t at = (static_cast<int64_t>(sequence) * p.kv_heads + kv) * p.places;
    return {rows.words + at * kTeam * kLaneWords<kStored>, rows.scales + at};
  };
  const HeadRows keys = of_this_head(p.keys), values = of_this_head(p.values);

  // Teams take keys in turn.
  const int stride = blocks * kParts * kTeams;
  int64_t first = (rank * kParts + part) * kTeams;  // of the warp's teams
  Eight<kStored> raw_keys[kAhead], raw_values[kAhead];
  const auto ask = [&] {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t place = first + team + i * stride;
      raw_keys[i] = raw_values[i] = {};
      if (place < position) {
        raw_keys[i] = eight_of<kFeatures, kStored>(keys, place, in_team);
        raw_values[i] = eight_of<kFeatures, kStored>(values, place, in_team);
      }
    }
  };
  ask();
  wait_for_dependencies();

  // The new key and value are for one block of the cluster, and for the cache: one of the clusters that share it.
  __shared__ float queries[kHeads][kFeatures], new_key[kFeatures], new_value[kFeatures];
  const bool has_new = rank == blocks - 1, writes = has_new && first_head % group == 0;
  if (warp < kHeads)
    rotate<kFeatures, kHalf>(p, p.q + sequence * p.q_stride + (first_head + warp) * kFeatures, position, lane,
                             queries[warp]);
  if (has_new && warp == kWarps - 1) {
    rotate<kFeatures, kHalf>(p, p.k + sequence * p.k_stride + kv * kFeatures, position, lane, new_key);
    round_and_store<kFeatures, kHalf, kStored>(lane, new_key, keys, position, writes);
  }
  if (has_new && warp == kWarps - 2) {
    const uint16_t* const v = p.v + sequence * p.v_stride + kv * kFeatures;
    for (int i = lane; i < kFeatures; i += kLanes) new_value[i] = number<kHalf>(v[i]);
    round_and_store<kFeatures, kHalf, kStored>(lane, new_value, values, position, writes);
  }
  __syncthreads();

  const float unit = rsqrtf(static_cast<float>(kFeatures)) * 1.44269504f;  // exponents are of two
  float q[kEach][8];
#pragma unroll
  for (int h = 0; h < kEach; ++h)
#pragma unroll
    for (int i = 0; i < 8; ++i) q[h][i] = queries[head + h][8 * in_team + i] * unit;

  Running running[kEach];
  const auto score_of = [&](const float(&query)[8], const float(&key)[8]) {
    float score = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) score = fmaf(query[i], key[i], score);
#pragma unroll
    for (int distance = kTeam / 2; distance > 0; distance /= 2) score += __shfl_xor_sync(~0u, score, distance);
    return score;
  };
  while (first < position) {  // as long as a team of the warp has a key: lanes meet in shuffles
    float scores[kEach][kAhead];
    Eight<kStored> now[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      float key[8];
      numbers_of<kHalf>(raw_keys[i], key);
#pragma unroll
      for (int h = 0; h < kEach; ++h) {
        const float score = score_of(q[h], key);
        scores[h][i] = first + team + i * stride < position ? score : -INFINITY;
      }
      now[i] = raw_values[i];
    }
    first += kAhead * stride;
    ask();
    float base[kEach];
#pragma unroll
    for (int h = 0; h < kEach; ++h) {
      Running& r = running[h];
      float most = r.most;
#pragma unroll
      for (int i = 0; i < kAhead; ++i) most = fmaxf(most, scores[h][i]);
      base[h] = most == -INFINITY ? 0 : most;  // a team without a key
      const float kept = exp2f(r.most - base[h]);
      r.most = most;
      r.total *= kept;
#pragma unroll
      for (int d = 0; d < 8; ++d) r.sum[d] *= kept;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      float value[8];
      numbers_of<kHalf>(now[i], value);
#pragma unroll
      for (int h = 0; h < kEach; ++h) {
        const float weight = exp2f(scores[h][i] - base[h]);
        running[h].total = __fadd_rn(running[h].total, weight);
#pragma unroll
        for (int d = 0; d < 8; ++d) running[h].sum[d] = fmaf(weight, value[d], running[h].sum[d]);
      }
    }
  }
  if (has_new && part == 0) {
    float key[8], value[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) key[i] = new_key[8 * in_team + i], value[i] = new_value[8 * in_team + i];
#pragma unroll
    for (int h = 0; h < kEach; ++h) {
      const float score = score_of(q[h], key);
      if (team == 0) running[h].add(score, 1, value);
    }
  }

  // The warp's teams, the block's warps of a head, the cluster's blocks.
#pragma unroll
  for (int distance = kTeam; distance < kLanes; distance *= 2)
#pragma unroll
    for (int h = 0; h < kEach; ++h) {
      float other[8];
      const float most = __shfl_xor_sync(~0u, running[h].most, distance);
      const float total = __shfl_xor_sync(~0u, running[h].total, distance);
#pragma unroll
      for (int i = 0; i < 8; ++i) other[i] = __shfl_xor_sync(~0u, running[h].sum[i], distance);
      running[h].add(most, total, other);
    }
  __shared__ float most_of[kHeads][kParts], total_of[kHeads][kParts], sum_of[kHeads][kParts][kFeatures];
  // What each block of the cluster found, of this one's share of the outputs.
  __shared__ float mosts[kMostBlocks][kHeads], totals[kMostBlocks][kHeads];
  __shared__ float sums[kMostBlocks][kHeads * kFeatures / 2];
  const int share = kHeads * kFeatures / blocks;
  if (team == 0) {
#pragma unroll
    for (int h = 0; h < kEach; ++h) {
      if (lane == 0) most_of[head + h][part] = running[h].most, total_of[head + h][part] = running[h].total;
#pragma unroll
      for (int i = 0; i < 8; ++i) sum_of[head + h][part][8 * lane + i] = running[h].sum[i];
    }
  }
  __syncthreads();
  cluster.barrier_wait();
  for (int i = thread; i < kHeads * kFeatures; i += kThreads) {
    const int h = i / kFeatures, d = i % kFeatures;
    float most = most_of[h][0], total = 0, sum = 0;
#pragma unroll
    for (int w = 1; w < kParts; ++w) most = fmaxf(most, most_of[h][w]);
#pragma unroll
    for (int w = 0; w < kParts; ++w) {
      const float share = most_of[h][w] == -INFINITY ? 0 : exp2f(most_of[h][w] - most);
      total = fmaf(share, total_of[h][w], total);
      sum = fmaf(share, sum_of[h][w][d], sum);
    }
    const int owner = i / share;
    *cluster.map_shared_rank(&sums[rank][i % share], owner) = sum;
    if (i % share == 0) {  // a share is of one head
      *cluster.map_shared_rank(&mosts[rank][h], owner) = most;
      *cluster.map_shared_rank(&totals[rank][h], owner) = total;
    }
  }
  cluster.sync();
  if (thread < share) {
    const int i = rank * share + thread, h = i / kFeatures;
    float most = -INFINITY, total = 0, sum = 0;
    for (int r = 0; r < blocks; ++r) most = fmaxf(most, mosts[r][h]);
    for (int r = 0; r < blocks; ++r) {
      const float share = mosts[r][h] == -INFINITY ? 0 : exp2f(mosts[r][h] - most);
      total = fmaf(share, totals[r][h], total);
      sum = fmaf(share, sums[r][thread], sum);
    }
    p.y[(static_cast<int64_t>(sequence) * p.heads + first_head) * kFeatures + i] = narrow<kHalf>(sum / total);
  }
}

template <int kFeatures, int kHeads, bool kHalf, Stored kStored>
void launch(const Params& p, int sequences, CUstream_st* stream) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  // What a block does before and after its keys costs as much as some hundred of them.
  const unsigned blocks = p.places <= 1024 ? 2 : p.places <= 4096 ? 4 : kMostBlocks;
  attributes[1].val.clusterDim = {blocks, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = {blocks, static_cast<unsigned>(p.heads / kHeads), static_cast<unsigned>(sequences)};
  config.blockDim = {Cut<kHeads, kStored>::kThreads, 1, 1};
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  require(cudaLaunchKernelEx(&config, attention_kernel<kFeatures, kHeads, kHalf, kStored>, p));
}

template <int kFeatures, bool kHalf, Stored kStored>
void launch_for_group(const Params& p, int sequences, CUstream_st* stream) {
  const int group = p.heads / p.kv_heads;
  if (group % 2 == 0) return launch<kFeatures, 2, kHalf, kStored>(p, sequences, stream);
  launch<kFeatures, 1, kHalf, kStored>(p, sequences, stream);
}

template <bool kHalf, Stored kStored>
void launch_for_features(const Params& p, int64_t features, int sequences, CUstream_st* stream) {
  if (features == 32) return launch_for_group<32, kHalf, kStored>(p, sequences, stream);
  if (features == 64) return launch_for_group<64, kHalf, kStored>(p, sequences, stream);
  if (features == 128) return launch_for_group<128, kHalf, kStored>(p, sequences, stream);
  if (features == 256) return launch_for_group<256, kHalf, kStored>(p, sequences, stream);
  throw std::invalid_argument("cached attention: expected 32, 64, 128 or 256 features a head on CUDA, found " +
                              std::to_string(features) + "; run on the CPU, or let the cache grow");
}

template <bool kHalf>
void launch_for_format(const Params& p, const CachedAttention& call, CUstream_st* stream) {
  const int sequences = static_cast<int>(call.sequences);
  if (!call.stored_as) return launch_for_features<kHalf, Stored::kNumbers>(p, call.features, sequences, stream);
  if (*call.stored_as == ActivationFormat::kInt8)
    return launch_for_features<kHalf, Stored::kInt8>(p, call.features, sequences, stream);
  launch_for_features<kHalf, Stored::kInt4>(p, call.features, sequences, stream);
}

}  // namespace

void cached_attention_cuda(const CachedAttention& call, Half dtype, CUstream_st* stream) {
  check(call);
  if (call.sequences == 0) return;
  const auto bits = [](const void* from) { return static_cast<const uint16_t*>(from); };
  const auto numbers = [](const void* from) { return static_cast<const float*>(from); };
  const auto rows = [](void* at, void* scales) {
    return HeadRows{static_cast<uint32_t*>(at), static_cast<float*>(scales)};
  };
  const Params p{bits(call.q),
                 bits(call.k),
                 bits(call.v),
                 numbers(call.cos),
                 numbers(call.sin),
                 call.positions,
                 rows(call.keys, call.key_scales),
                 rows(call.values, call.value_scales),
                 static_cast<uint16_t*>(call.y),
                 call.q_stride,
                 call.k_stride,
                 call.v_stride,
                 call.places,
                 static_cast<int>(call.heads),
                 static_cast<int>(call.kv_heads)};
  dtype == Half::kFloat16 ? launch_for_format<true>(p, call, stream) : launch_for_format<false>(p, call, stream);
}

}  // namespace satin::kernels
