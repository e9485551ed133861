// One new token over its cache: 16 keys at a time are dealt to the warps of a cluster of blocks, and what they found is
// brought together through the blocks' shared memory.
//
// A cluster has up to eight query heads of one key-value head (cached_tiles.cuh). There is little to compute and long
// to wait: keys and values that are there already are asked for before the kernel before this one has ended
// (programmatic dependent launch), and made numbers of while the query is on its way.
//
// Time on an H200, one launch after the other, 32 heads of 8, bfloat16: us predicted for the cache's bytes at 4.8 TB/s,
// and measured; about 2.5 us wait on something else (launch, query and angles, softmax, cluster). In brackets: a warp
// that takes one head on plain instructions, as this kernel was.
//                       1 sequence        4 sequences       16 sequences
//    64 features,   513 places   .2  2.7 (4.5)     .9  3.3 (5.4)     3.5  6.5 (21)
//                 4,097 places  1.7  6.0 (13)      7   11 (36)      28    36 (128)
//   128 features,   513 places   .4  2.7 (7.3)    1.8  4.8 (8.2)     7    9.6 (33)
//   256 features,   513 places   .8  5.5 (12)     3.5  9.6 (13)     14    23 (56)
// (16 sequences in clusters of one; of two, as blocks_for has them with 64 features, 4,097 places took 10 % less.) Of
// int8 and int4 instructions are the limit, three fifths of which make numbers: 64 features, 4,097 places take 7.5 to
// 8.4, 14 to 16 and 41 to 47 us. Clusters larger than blocks_for says are slower, since their last wait for the first:
// 16 sequences, 513 places in clusters of 2 7.3, of 4 11.2, of 8 17 us; one sequence in clusters of 8 .5 more than
// of 4. Clusters of 16 (one sequence, a whole token of the 1.2b shape at 4 bits): after 4,096 others 402 us instead of
// 399, of int8 432 instead of 443, of int4 444 instead of 463; after 16,384 others 532 instead of 570. Tried: four
// warps a block (one sequence 3.6 and 8.1, 16 of 4,097 places 56 us), these with two tiles ahead (3.1, 6.9 and 45 us),
// tiles after the first brought into the L2 meanwhile (level for one sequence, 1 to 4 % of a token more for sixteen).
#include "kernels/cached_attention.h"
#include "kernels/cuda/cached_heads.cuh"
#include "kernels/cuda/hopper.cuh"

namespace satin::kernels {
namespace {

constexpr int kMostBlocks = 16;  ///< of a cluster; every device takes 8
/// What eight warps find of 256 features is more than the 48 KiB that a block has without asking.
template <int kFeatures>
constexpr int kWarpsOf = kFeatures < 256 ? 8 : 4;
template <int kFeatures>
constexpr int kBlocksAnSm = kFeatures == 128 ? 1 : 2;

struct Params {
  const uint16_t *q, *k, *v;
  const float *cos, *sin;
  const int64_t* positions;
  HeadRows keys, values;  ///< of the first head
  uint16_t* y;
  int64_t q_stride, k_stride, v_stride, places;
  int heads, kv_heads, group;  ///< group: query heads of a key-value head
};

/// Numbers as they lie in the cache; of integers, those made.
template <class Tile>
__device__ __forceinline__ Tile& as_numbers(Tile& stored, Tile&) {
  return stored;
}
template <class Integers, class Tile>
__device__ __forceinline__ Tile& as_numbers(Integers&, Tile& made) {
  return made;
}

template <int kFeatures, bool kHalf, Stored kStored>
__global__ void __launch_bounds__(kWarpsOf<kFeatures>* kLanes, kBlocksAnSm<kFeatures>)
    attention_kernel(const Params p) {
  constexpr int kWarps = kWarpsOf<kFeatures>, kThreads = kWarps * kLanes;
  constexpr bool kNumbers = kStored == Stored::kNumbers;
  // Of integers the next tile's numbers are made while a tile is used, and the one after is on its way: up to 128
  // features there are registers for it.
  constexpr bool kMakesAhead = !kNumbers && kFeatures < 256;
  using Tile = KeyTile<kFeatures, Stored::kNumbers>;
  using Running = RunningHeads<kFeatures, kHalf>;
  let_dependents_start();
  const int block = block_of_cluster(), blocks = blocks_of_cluster(), pass = cluster_along_x();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kLanes;
  const int warp = __shfl_sync(~0u, thread / kLanes, 0);  // so that the compiler knows that a warp has one
  const int g = lane / 4, q = lane % 4;
  const int sequence = static_cast<int>(blockIdx.z), kv = static_cast<int>(blockIdx.y);
  const int first = pass * kMostHeads;  // of the group's heads
  const int first_head = kv * p.group + first, heads = min(kMostHeads, p.group - first);
  const int position = static_cast<int>(p.positions[sequence]);
  const auto of_this_head = [&](const HeadRows& rows) -> HeadRows {
    const int64_t at = (static_cast<int64_t>(sequence) * p.kv_heads + kv) * p.places;
    return {rows.words + at * (kFeatures * kBitsOf<kStored> / 32), rows.scales + at};
  };
  const HeadRows keys = of_this_head(p.keys), values = of_this_head(p.values);

  // What blocks send one another: a share of every head's features.
  __shared__ float received_sums[kMostHeads * kFeatures];
  __shared__ float2 received_totals[kMostBlocks][kMostHeads];
  __shared__ uint64_t all_received;
  const int share = kFeatures / blocks;
  if (thread == 0 && blocks > 1) {
    const uint32_t barrier = shared_address(&all_received);
    init_barrier(barrier, 1);
    fence_barrier_init();
    arrive_expecting(barrier, static_cast<uint32_t>(blocks * heads * (4 * share + 8)));
  }
  tell_cluster_begun();

  const int step = kWarps * blocks, new_tile = position / kTileKeys;
  int tile = warp * blocks + block;
  using Raw = KeyTile<kFeatures, kStored>;
  Raw ahead;
  typename Raw::Reader key_reader = Raw::key_reader(keys, tile, g, q);
  typename Raw::Reader value_reader = Raw::value_reader(values, tile, g, q);
  int left = position - tile * kTileKeys;  // rows, from where values are read on
  const auto load_keys = [&] {
    ahead.load_keys(key_reader, left, g);
    key_reader.advance(step * kTileKeys);
  };
  const auto load_values = [&] {
    ahead.load_values(value_reader, left, q);
    value_reader.advance(step * kTileKeys);
    left -= step * kTileKeys;
  };
  load_keys(), load_values();

  // Queries; the new key and value are for the block whose tile they end, and one of the passes puts them in the cache.
  __shared__ __align__(16) uint16_t fresh[kMostHeads + 2][kFeatures];  // key, value, queries
  constexpr int kRounds = (kMostHeads + 2 + kWarps - 1) / kWarps;
  const bool has_new = new_tile % blocks == block;
  const auto is_wanted = [&](int n) { return n < heads + 2 && (n >= 2 || has_new); };
  HeadsAhead<kFeatures, kHalf, kRounds> fresh_heads;
  fresh_heads.load_angles(p.cos, p.sin, position, lane);
  wait_for_dependencies();
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const int n = r * kWarps + warp;
    const uint16_t* const from = n >= 2   ? p.q + sequence * p.q_stride + (first_head + n - 2) * kFeatures
                                 : n == 0 ? p.k + sequence * p.k_stride + kv * kFeatures
                                          : p.v + sequence * p.v_stride + kv * kFeatures;
    if (is_wanted(n)) fresh_heads.load(r, from, lane);
  }
  Tile made;  // of integers: the next tile's numbers
  const auto next_keys = [&] {
    if constexpr (kMakesAhead) ahead.template keys_to_numbers<kHalf>(made);
    load_keys();
  };
  const auto next_values = [&] {
    if constexpr (kMakesAhead) ahead.template values_to_numbers<kHalf>(made);
    load_values();
  };
  if constexpr (kMakesAhead) next_keys(), next_values();
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const int n = r * kWarps + warp;
    if (is_wanted(n)) fresh_heads.store(r, n != 1, lane, fresh[n]);
  }
  if (has_new && warp < 2) {
    const HeadRows rows{warp == 0 ? keys.words : values.words, warp == 0 ? keys.scales : values.scales};
    round_and_store<kFeatures, kHalf, kStored>(lane, fresh[warp], rows, position, pass == 0);
  }
  __syncthreads();

  constexpr bool kKeepsQuery = kFeatures < 256;  // in registers
  const auto query_words = [&](int i) -> uint4 {
    const uint4 x = g < heads ? *reinterpret_cast<const uint4*>(fresh[2 + g] + 8 * (4 * i + q)) : uint4{};
    return {x.x, x.z, x.y, x.w};
  };
  uint4 kept[kKeepsQuery ? kFeatures / 32 : 1] = {};
  if constexpr (kKeepsQuery)
#pragma unroll
    for (int i = 0; i < kFeatures / 32; ++i) kept[i] = query_words(i);
  const auto query = [&](int i) { return kKeepsQuery ? kept[kKeepsQuery ? i : 0] : query_words(i); };

  Running running;
  for (; tile <= new_tile; tile += step) {
    if constexpr (!kNumbers && !kMakesAhead) {
      ahead.template keys_to_numbers<kHalf>(made), ahead.template values_to_numbers<kHalf>(made);
      ahead = Raw{};  // no register has what was there until something new is
    }
    Tile& now = as_numbers(ahead, made);
    const int last = tile == new_tile ? position % kTileKeys : kTileKeys - 1;
    if (tile == new_tile) now.insert(fresh[0], fresh[1], last, g, q);
    float scores[4];
    running.score(now, query, last, q, scores);
    next_keys();
    running.add(now, running.weigh(scores, q));
    next_values();
  }

  // The block's warps, then the cluster's blocks.
  constexpr int kStride = kFeatures + 8;
  __shared__ __align__(16) float sums[kWarps][kMostHeads][kStride];
  __shared__ float2 totals[kWarps][kMostHeads];
  const float total = running.whole_total();
  if (q == 0 && g < heads) totals[warp][g] = {running.base, total};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int head = 2 * q + h;
    if (head >= heads) break;
    constexpr int kWords = Tile::kOfValue / 2;  // of a piece
#pragma unroll
    for (int t = 0; t < Running::kWords; t += 2) {
      const int feature = (t / kWords * 8 + g) * Tile::kOfValue + t % kWords * 2;
      *reinterpret_cast<float4*>(&sums[warp][head][feature]) = {
          running.average[t][h], running.average[t][2 + h], running.average[t + 1][h], running.average[t + 1][2 + h]};
    }
  }
  __syncthreads();
  wait_for_cluster();
  const auto put = [&](int head, int feature, const Merged& of) {
    const int64_t at = (static_cast<int64_t>(sequence) * p.heads + first_head + head) * kFeatures + feature;
    *reinterpret_cast<uint32_t*>(p.y + at) =
        narrow<kHalf>(__fdividef(of.first, of.total), __fdividef(of.second, of.total));
  };
  const int share_shift = 31 - __clz(share);
#pragma unroll 1
  for (int i = thread; i < heads * kFeatures / 2; i += kThreads) {
    const int head = i / (kFeatures / 2), feature = i % (kFeatures / 2) * 2;
    Merged all;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) all.most = fmaxf(all.most, totals[w][head].x);
#pragma unroll
    for (int w = 0; w < kWarps; ++w)
      all.add(Running::kUnit, totals[w][head], *reinterpret_cast<const float2*>(&sums[w][head][feature]));
    if (blocks == 1) {
      put(head, feature, all);
      continue;
    }
    const int to = feature >> share_shift, at = feature & (share - 1);
    const uint32_t barrier = shared_address(&all_received);
    send(shared_address(received_sums + (block * heads + head) * share + at), barrier, to, all.first, all.second);
    if (at == 0) send(shared_address(&received_totals[block][head]), barrier, to, all.most, all.total);
  }
  if (blocks == 1) return;
  wait_for(shared_address(&all_received), 0);
#pragma unroll 1
  for (int i = thread; i < heads * share / 2; i += kThreads) {
    const int head = 2 * i >> share_shift, at = 2 * i & (share - 1);
    Merged all;
#pragma unroll 1
    for (int b = 0; b < blocks; ++b) all.most = fmaxf(all.most, received_totals[b][head].x);
#pragma unroll 2
    for (int b = 0; b < blocks; ++b)
      all.add(Running::kUnit, received_totals[b][head],
              *reinterpret_cast<const float2*>(received_sums + (b * heads + head) * share + at));
    put(head, block * share + at, all);
  }
}

/// Clusters of kMostBlocks that the device runs at once: none if it does not take them.
template <int kFeatures, bool kHalf>
int large_clusters() {
  static const int clusters = [] {
    const auto kernel = attention_kernel<kFeatures, kHalf, Stored::kNumbers>;
    cudaLaunchAttribute size{};
    size.id = cudaLaunchAttributeClusterDimension;
    size.val.clusterDim = {kMostBlocks, 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = {kMostBlocks, 1, 1};
    config.blockDim = {kWarpsOf<kFeatures> * kLanes, 1, 1};
    config.attrs = &size;
    config.numAttrs = 1;
    int found = 0;
    const bool takes = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) == cudaSuccess &&
                       cudaOccupancyMaxActiveClusters(&found, kernel, &config) == cudaSuccess;
    if (!takes) static_cast<void>(cudaGetLastError());  // it is no error to anyone
    return takes ? found : 0;
  }();
  return clusters;
}

/// Blocks of a cluster: as many as leave all blocks on the GPU at once and a tile for each warp, of the largest
/// clusters, which begin late, two. Of more, the last wait for the first. The same whatever the cache holds.
template <int kFeatures, bool kHalf>
int blocks_for(const Params& p, int sequences, int passes) {
  constexpr int64_t kPlaces = kTileKeys * kWarpsOf<kFeatures>;
  const int64_t clusters = static_cast<int64_t>(sequences) * p.kv_heads * passes;
  const auto fits = [&](int blocks) {
    const bool is_large = blocks == kMostBlocks;
    if ((is_large ? 2 : 1) * blocks > (p.places + kPlaces - 1) / kPlaces) return false;
    // Of 132 SMs clusters of four and eight leave twelve empty.
    return clusters <=
           (is_large ? large_clusters<kFeatures, kHalf>() : (blocks > 2 ? 120 : 132) * kBlocksAnSm<kFeatures> / blocks);
  };
  int blocks = 1;
  while (blocks < kMostBlocks && fits(2 * blocks)) blocks *= 2;
  return blocks;
}

template <int kFeatures, bool kHalf, Stored kStored>
void launch(const Params& p, int sequences, CUstream_st* stream) {
  const int passes = (p.group + kMostHeads - 1) / kMostHeads;
  const auto blocks = static_cast<unsigned>(blocks_for<kFeatures, kHalf>(p, sequences, passes));
  if (blocks == kMostBlocks)
    require(cudaFuncSetAttribute(attention_kernel<kFeatures, kHalf, kStored>,
                                 cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  launch_early("cached_attention", attention_kernel<kFeatures, kHalf, kStored>,
               {.blocks = blocks * static_cast<unsigned>(passes),
                .threads = kWarpsOf<kFeatures> * kLanes,
                .blocks_y = static_cast<unsigned>(p.kv_heads),
                .blocks_z = static_cast<unsigned>(sequences),
                .cluster = blocks},
               stream, p);
}

template <bool kHalf, Stored kStored>
void launch_for_features(const Params& p, int64_t features, int sequences, CUstream_st* stream) {
  if (features == 32) return launch<32, kHalf, kStored>(p, sequences, stream);
  if (features == 64) return launch<64, kHalf, kStored>(p, sequences, stream);
  if (features == 128) return launch<128, kHalf, kStored>(p, sequences, stream);
  if (features == 256) return launch<256, kHalf, kStored>(p, sequences, stream);
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
                 static_cast<int>(call.kv_heads),
                 static_cast<int>(call.heads / call.kv_heads)};
  dtype == Half::kFloat16 ? launch_for_format<true>(p, call, stream) : launch_for_format<false>(p, call, stream);
}

}  // namespace satin::kernels
