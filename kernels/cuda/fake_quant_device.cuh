// What the fake-quant kernels share: how blocks find their matrix and threads their group, loads and stores, sums
// within a group, batches of matrices in one launch.
//
// A team of threads owns a group: part of a warp for groups below kBlockGroup weights, the whole block above. Each
// thread takes V consecutive weights at a time (16-byte loads and stores when everything is aligned). Sums run in a
// fixed order: a thread's own weights, then a butterfly within the warp, then the block's warps.
#pragma once
#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#else
#include "kernels/cuda/emulation.h"
#endif

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/fake_quant.h"
#include "kernels/fake_quant_math.h"
#include "kernels/for_grid.h"

namespace satin::kernels {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int64_t kBlockGroup = 1024;
constexpr int kVector = 8;
constexpr int kVectorsAThread = 2;  ///< of a group, both loaded first: constants are computed once for both

/// Arithmetic is fp32, or fp64 for fp64 weights.
template <class W>
using Compute = std::conditional_t<std::is_same_v<W, double>, double, float>;

template <class C, class S>
__device__ __forceinline__ C load_as(S x) {
  if constexpr (std::is_same_v<S, __nv_bfloat16>) {
    return static_cast<C>(__bfloat162float(x));
  } else {
    return static_cast<C>(x);
  }
}
template <class S, class C>
__device__ __forceinline__ S store_as(C x) {
  if constexpr (std::is_same_v<S, __nv_bfloat16>) {
    return __float2bfloat16_rn(static_cast<float>(x));
  } else {
    return static_cast<S>(x);
  }
}

/// x rounded to the dequantised format, then to the output's.
template <class O, class C>
__device__ __forceinline__ O store_rounded(Rounding rounding, C x) {
  if constexpr (std::is_same_v<O, __nv_bfloat16>) {  // to bfloat16 twice is once
    return store_as<O>(rounding == Rounding::kFloat16 ? round_to(Rounding::kFloat16, x) : x);
  } else {
    return store_as<O>(round_to(rounding, x));
  }
}

template <class S, int V>
struct alignas(sizeof(S) * V < 16 ? sizeof(S) * V : 16) Pack {
  S values[V];
};
template <int V, class S>
__device__ __forceinline__ Pack<S, V> load_pack(const S* from) {
  return *reinterpret_cast<const Pack<S, V>*>(from);
}
template <int V, class S>
__device__ __forceinline__ void store_pack(S* to, const Pack<S, V>& pack) {
  *reinterpret_cast<Pack<S, V>*>(to) = pack;
}

/// Groups of one matrix over teams of 1 << log2_team threads (at most a warp, or the whole block).
struct Layout {
  int64_t num_groups;
  int group_size, log2_team;

  /// Blocks that the matrix takes.
  __host__ int64_t blocks() const {
    const int64_t groups_per_block = kThreads >> log2_team;
    return (num_groups + groups_per_block - 1) / groups_per_block;
  }
  /// Whether a thread takes exactly kVectorsAThread vectors, no loop.
  __host__ bool whole(int vector) const { return group_size == (kVectorsAThread * vector) << log2_team; }
};

inline Layout make_layout(Extent extent, int64_t group_size, int vector) {
  static_assert(kThreads == 1 << 8 && kWarp == 1 << 5);
  int log2_team = 0;
  if (group_size >= kBlockGroup) {
    log2_team = 8;
  } else {
    while (log2_team < 5 && (int64_t{kVectorsAThread * vector} << log2_team) < group_size) ++log2_team;
  }
  if (group_size > 0x7fffffff) throw std::invalid_argument("fake_quant: a group of more than 2^31 weights");
  return {extent.num_rows * (extent.num_columns / group_size), static_cast<int>(group_size), log2_team};
}

/// Matrices of one launch. A kernel's arguments hold 32764 bytes (since CUDA 12.1); each launch costs some microseconds
/// of an idle device.
template <class Item>
class Batch {
 public:
  static constexpr int kCapacity = 256;

  /// False when the launch is full.
  bool add(const Item& item, int64_t num_blocks) {
    if (num_items_ == kCapacity || first_blocks_[num_items_] + num_blocks > 0x7fffffff) return false;
    items_[num_items_] = item;
    first_blocks_[num_items_ + 1] = first_blocks_[num_items_] + static_cast<unsigned>(num_blocks);
    ++num_items_;
    return true;
  }
  void clear() { num_items_ = 0; }
  unsigned num_blocks() const { return first_blocks_[num_items_]; }

  /// Call before the launch: where find() begins.
  void index() {
    hint_shift_ = 0;
    while ((num_blocks() - 1) >> hint_shift_ >= kCapacity) ++hint_shift_;
    int item = 0;
    for (unsigned i = 0; i << hint_shift_ < num_blocks(); ++i) {
      while (first_blocks_[item + 1] <= i << hint_shift_) ++item;
      hints_[i] = static_cast<uint8_t>(item);
    }
  }

  struct Found {
    const Item& item;
    unsigned block;  ///< of the item's
  };
  __device__ __forceinline__ Found find() const {
    int i = hints_[blockIdx.x >> hint_shift_];
    while (first_blocks_[i + 1] <= blockIdx.x) ++i;
    return {items_[i], blockIdx.x - first_blocks_[i]};
  }

 private:
  int num_items_ = 0, hint_shift_ = 0;
  unsigned first_blocks_[kCapacity + 1] = {};  ///< ascending, one more than there are items
  uint8_t hints_[kCapacity];                   ///< the item of block i << hint_shift
  Item items_[kCapacity];
};

/// Where a thread works: its group, its lane in the team.
struct Place {
  int64_t group;
  int lane, team;
};
__device__ __forceinline__ Place place(const Layout& layout, unsigned block) {
  const int team = 1 << layout.log2_team, teams = kThreads >> layout.log2_team;
  return {static_cast<int64_t>(block) * teams + (static_cast<int>(threadIdx.x) >> layout.log2_team),
          static_cast<int>(threadIdx.x) & (team - 1), team};
}

/// The team's sum, in all of its lanes. Called by every thread of the block; teams are at most a warp, or the block.
template <class C>
__device__ __forceinline__ C team_sum(C value, int team) {
  const int width = team < kWarp ? team : kWarp;
  for (int offset = width / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (team <= kWarp) return value;
  __shared__ C warps[kThreads / kWarp];
  __syncthreads();  // an earlier call's sums have been read
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  C sum = 0;
  for (int i = 0; i < kThreads / kWarp; ++i) sum += warps[i];
  return sum;
}

inline bool aligned(std::initializer_list<const void*> pointers) {
  for (const void* pointer : pointers)
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  return true;
}

/// Whether runs of `length` values from these pointers can be read and written in vectors of kVector.
inline bool fits_vectors(int64_t length, std::initializer_list<const void*> pointers) {
  return length % kVector == 0 && aligned(pointers);
}

inline void check_launch(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string(kernel) + ": " + cudaGetErrorString(error));
}

/// kernel<<<num_blocks, kThreads, 0, stream>>>(arguments...)
template <class... Parameters>
void launch_kernel(void (*kernel)(Parameters...), unsigned num_blocks, CUstream_st* stream,
                   const std::type_identity_t<Parameters>&... arguments) {
#if defined(__CUDACC__)
  kernel<<<num_blocks, kThreads, 0, stream>>>(arguments...);
#else
  emulation::Block block(kThreads, [&] { kernel(arguments...); });
  for (blockIdx.x = 0; blockIdx.x < num_blocks; ++blockIdx.x) block.run();
#endif
}

/// One matrix in a launch of its own: launch.template operator()<V>(layout, num_blocks), V = kVector where its groups
/// and the pointers fit, else 1. `name`: the kernel's, for errors.
template <class Launch>
void launch_matrix(const char* name, Extent extent, int64_t group_size, std::initializer_list<const void*> pointers,
                   const Launch& launch) {
  const auto run = [&]<int V>() {
    const Layout layout = make_layout(extent, group_size, V);
    if (layout.blocks() > 0x7fffffff)
      throw std::invalid_argument(std::string(name) + ": too many groups for one launch");
    launch.template operator()<V>(layout, static_cast<unsigned>(layout.blocks()));
  };
  if (fits_vectors(group_size, pointers)) {
    run.template operator()<kVector>();
  } else {
    run.template operator()<1>();
  }
}

/// An item and the blocks that it takes.
template <class Item>
struct Work {
  Item item;
  int64_t num_blocks;
};

/// Fills batches and launches each: make_work(task) -> std::optional<Work<Item>> (nothing: another launch's task; no
/// blocks: an empty one),
/// launch(batch) with batch.num_blocks() blocks.
template <class Item, class Task, class MakeWork, class Launch>
void launch_batches(std::span<const Task> tasks, const MakeWork& make_work, const Launch& launch) {
  static_assert(sizeof(Batch<Item>) <= 32000);
  Batch<Item> batch;
  const auto flush = [&] {
    if (batch.num_blocks() == 0) return;
    batch.index();
    launch(batch);
    batch.clear();
  };
  for (const Task& task : tasks) {
    const std::optional<Work<Item>> work = make_work(task);
    if (!work || work->num_blocks == 0) continue;
    if (work->num_blocks > 0x7fffffff) throw std::invalid_argument("a tensor of too many blocks for one launch");
    if (!batch.add(work->item, work->num_blocks)) {
      flush();
      batch.add(work->item, work->num_blocks);
    }
  }
  flush();
}

template <class T>
struct Type {
  using type = T;
};

/// body(Type<W>) for the dtype.
template <class Body>
void for_weight(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::kFloat:
      return body(Type<float>{});
    case Dtype::kBFloat16:
      return body(Type<__nv_bfloat16>{});
    case Dtype::kDouble:
      return body(Type<double>{});
  }
}

/// body(Type<W>, Type<O>): fp64 goes with fp64, the others mix.
template <class Body>
void for_weight_and_value(Dtype weight, Dtype value, const Body& body) {
  if ((weight == Dtype::kDouble) != (value == Dtype::kDouble))
    throw std::invalid_argument("fake_quant: expected float64 values with float64 weights and only there");
  for_weight(weight, [&]<class W>(Type<W> w) {
    if constexpr (std::is_same_v<W, double>) {
      body(w, Type<double>{});
    } else if (value == Dtype::kBFloat16) {
      body(w, Type<__nv_bfloat16>{});
    } else {
      body(w, Type<float>{});
    }
  });
}

inline void check_tasks(FakeQuantGrid grid, Extent extent, int64_t group_size) {
  grid.group_size = group_size;
  check(grid, extent);
}

}  // namespace satin::kernels
