// CUDA kernels of fake_quant.h. A team of threads owns a group: part of a warp for groups below kBlockGroup weights, a
// block above; each thread takes V consecutive weights at a time (16-byte loads and stores when everything is aligned).
// Sums run in a fixed order: a thread's own weights, then a butterfly within the warp, then the block's warps.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/fake_quant.h"
#include "kernels/fake_quant_math.h"

namespace satin::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int64_t kBlockGroup = 1024;
constexpr int kVector = 8;

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

/// Groups over teams: team = 1 << log2_team threads (at most a warp, or the whole block).
struct Layout {
  int64_t num_groups, group_size;
  int log2_team;
};

struct Place {
  int64_t group;
  int lane, team;
};
__device__ __forceinline__ Place place(const Layout& layout) {
  const int team = 1 << layout.log2_team;
  return {(static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) >> layout.log2_team,
          static_cast<int>(threadIdx.x) & (team - 1), team};
}

template <Grid kGrid, class W, class O, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(FakeQuantGrid grid, Layout layout, const W* __restrict__ w, const Compute<W>* __restrict__ scale,
                   const Compute<W>* __restrict__ zero_point, O* __restrict__ out) {
  using C = Compute<W>;
  const Place at = place(layout);
  if (at.group >= layout.num_groups) return;
  const Group<kGrid, C> group(grid, scale[at.group], kGrid == Grid::kAsymmetric ? zero_point[at.group] : C(0));
  const int64_t first = at.group * layout.group_size;
  for (int64_t i = static_cast<int64_t>(at.lane) * V; i < layout.group_size; i += static_cast<int64_t>(at.team) * V) {
    const Pack<W, V> ws = load_pack<V>(w + first + i);
    Pack<O, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const C level = group.level(load_as<C>(ws.values[j]) / group.a);
      result.values[j] = store_as<O>(round_to(grid.dequant_rounding, group.stored * level));
    }
    store_pack<V>(out + first + i, result);
  }
}

template <Grid kGrid, class W, int V>
__global__ void __launch_bounds__(kThreads)
    codes_kernel(FakeQuantGrid grid, Layout layout, const W* __restrict__ w, const Compute<W>* __restrict__ scale,
                 const Compute<W>* __restrict__ zero_point, uint8_t* __restrict__ codes,
                 Compute<W>* __restrict__ stored, int32_t* __restrict__ zero) {
  using C = Compute<W>;
  const Place at = place(layout);
  if (at.group >= layout.num_groups) return;
  const Group<kGrid, C> group(grid, scale[at.group], kGrid == Grid::kAsymmetric ? zero_point[at.group] : C(0));
  const int64_t first = at.group * layout.group_size;
  for (int64_t i = static_cast<int64_t>(at.lane) * V; i < layout.group_size; i += static_cast<int64_t>(at.team) * V) {
    const Pack<W, V> ws = load_pack<V>(w + first + i);
    Pack<uint8_t, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j)
      result.values[j] = static_cast<uint8_t>(group.code(group.level(load_as<C>(ws.values[j]) / group.a)));
    store_pack<V>(codes + first + i, result);
  }
  if (at.lane == 0) {
    stored[at.group] = group.stored;
    zero[at.group] = group.zero_code();
  }
}

/// The team's sum, valid in its lane 0. Called by every thread of the block.
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

template <Grid kGrid, class W, class O, int V>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(FakeQuantGrid grid, Layout layout, Compute<W> multiplier, const O* __restrict__ grad,
                    const W* __restrict__ w, const Compute<W>* __restrict__ scale,
                    const Compute<W>* __restrict__ zero_point, W* __restrict__ grad_w,
                    Compute<W>* __restrict__ grad_scale, Compute<W>* __restrict__ grad_zero_point) {
  using C = Compute<W>;
  const Place at = place(layout);
  const bool active = at.group < layout.num_groups;  // all threads take part in the sums
  const int64_t g = active ? at.group : 0, first = g * layout.group_size;
  const int64_t end = active ? layout.group_size : 0;
  const Group<kGrid, C> group(grid, scale[g], kGrid == Grid::kAsymmetric ? zero_point[g] : C(0));
  C scale_sum = 0, outside_sum = 0;
  for (int64_t i = static_cast<int64_t>(at.lane) * V; i < end; i += static_cast<int64_t>(at.team) * V) {
    const Pack<W, V> ws = load_pack<V>(w + first + i);
    const Pack<O, V> gs = load_pack<V>(grad + first + i);
    Pack<W, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const C u = load_as<C>(ws.values[j]) / group.a, d = load_as<C>(gs.values[j]);
      const C q = group.level(u) * unit<kGrid, C>();
      const bool inside = group.inside(u);
      result.values[j] = store_as<W>(inside ? d : C(0));
      scale_sum += d * (inside ? q - u : q);
      outside_sum += inside ? C(0) : d;
    }
    store_pack<V>(grad_w + first + i, result);
  }
  scale_sum = team_sum(scale_sum, at.team);
  if constexpr (kGrid == Grid::kAsymmetric) outside_sum = team_sum(outside_sum, at.team);
  if (active && at.lane == 0) {
    grad_scale[g] = multiplier * scale_sum;
    if constexpr (kGrid == Grid::kAsymmetric) grad_zero_point[g] = multiplier * (-group.a * outside_sum);
  }
}

struct Launch {
  Layout layout;
  unsigned blocks;
};

Launch plan(const FakeQuantGrid& grid, Extent extent, int vector) {
  const int64_t num_groups = extent.num_rows * (extent.num_columns / grid.group_size);
  int log2_team = 0;
  if (grid.group_size >= kBlockGroup) {
    log2_team = 8;  // kThreads
  } else {
    while (log2_team < 5 && (int64_t{vector} << log2_team) < grid.group_size) ++log2_team;
  }
  static_assert(kThreads == 1 << 8 && kWarp == 1 << 5);
  const int64_t blocks = ((num_groups << log2_team) + kThreads - 1) / kThreads;
  if (blocks > 0x7fffffff) throw std::invalid_argument("fake_quant: too many groups for one launch");
  return {{num_groups, grid.group_size, log2_team}, static_cast<unsigned>(blocks)};
}

bool aligned(std::initializer_list<const void*> pointers) {
  for (const void* pointer : pointers)
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  return true;
}

void check_launch(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string(kernel) + ": " + cudaGetErrorString(error));
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

/// body<kGrid, V>()
template <class Body>
void for_grid_and_vector(Grid kind, bool vectors, const Body& body) {
  const auto with_grid = [&]<Grid kGrid>() {
    vectors ? body.template operator()<kGrid, kVector>() : body.template operator()<kGrid, 1>();
  };
  switch (kind) {
    case Grid::kSymmetric:
      return with_grid.template operator()<Grid::kSymmetric>();
    case Grid::kAsymmetric:
      return with_grid.template operator()<Grid::kAsymmetric>();
    case Grid::kSeq:
      return with_grid.template operator()<Grid::kSeq>();
    case Grid::kTernary:
      return with_grid.template operator()<Grid::kTernary>();
  }
}

}  // namespace

void fake_quant_cuda(const FakeQuantGrid& grid, Extent extent, Dtype w_dtype, const void* w, const void* scale,
                     const void* zero_point, Dtype out_dtype, void* out, CUstream_st* stream) {
  check(grid, extent);
  if (extent.num_rows == 0 || extent.num_columns == 0) return;
  for_weight_and_value(w_dtype, out_dtype, [&]<class W, class O>(Type<W>, Type<O>) {
    using C = Compute<W>;
    for_grid_and_vector(grid.kind, grid.group_size % kVector == 0 && aligned({w, out}), [&]<Grid kGrid, int V>() {
      const Launch launch = plan(grid, extent, V);
      forward_kernel<kGrid, W, O, V><<<launch.blocks, kThreads, 0, stream>>>(
          grid, launch.layout, static_cast<const W*>(w), static_cast<const C*>(scale),
          static_cast<const C*>(zero_point), static_cast<O*>(out));
    });
  });
  check_launch("fake_quant_cuda");
}

void fake_quant_codes_cuda(const FakeQuantGrid& grid, Extent extent, Dtype w_dtype, const void* w, const void* scale,
                           const void* zero_point, uint8_t* codes, void* stored, int32_t* zero, CUstream_st* stream) {
  check(grid, extent);
  if (extent.num_rows == 0 || extent.num_columns == 0) return;
  for_weight(w_dtype, [&]<class W>(Type<W>) {
    using C = Compute<W>;
    for_grid_and_vector(grid.kind, grid.group_size % kVector == 0 && aligned({w, codes}), [&]<Grid kGrid, int V>() {
      const Launch launch = plan(grid, extent, V);
      codes_kernel<kGrid, W, V><<<launch.blocks, kThreads, 0, stream>>>(
          grid, launch.layout, static_cast<const W*>(w), static_cast<const C*>(scale),
          static_cast<const C*>(zero_point), codes, static_cast<C*>(stored), zero);
    });
  });
  check_launch("fake_quant_codes_cuda");
}

void fake_quant_backward_cuda(const FakeQuantGrid& grid, Extent extent, Dtype grad_dtype, const void* grad,
                              Dtype w_dtype, const void* w, const void* scale, const void* zero_point, void* grad_w,
                              void* grad_scale, void* grad_zero_point, CUstream_st* stream) {
  check(grid, extent);
  if (extent.num_rows == 0 || extent.num_columns == 0) return;
  const double multiplier = gradient_multiplier(grid);
  for_weight_and_value(w_dtype, grad_dtype, [&]<class W, class O>(Type<W>, Type<O>) {
    using C = Compute<W>;
    const bool vectors = grid.group_size % kVector == 0 && aligned({grad, w, grad_w});
    for_grid_and_vector(grid.kind, vectors, [&]<Grid kGrid, int V>() {
      const Launch launch = plan(grid, extent, V);
      backward_kernel<kGrid, W, O, V><<<launch.blocks, kThreads, 0, stream>>>(
          grid, launch.layout, static_cast<C>(multiplier), static_cast<const O*>(grad), static_cast<const W*>(w),
          static_cast<const C*>(scale), static_cast<const C*>(zero_point), static_cast<W*>(grad_w),
          static_cast<C*>(grad_scale), static_cast<C*>(grad_zero_point));
    });
  });
  check_launch("fake_quant_backward_cuda");
}

}  // namespace satin::kernels
