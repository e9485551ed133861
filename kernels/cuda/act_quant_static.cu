// The static form of act_quant.h: values, and both gradients in one pass. Rows do not matter here: blocks take
// kValuesPerBlock values each, and a block's values do not depend on alignment or shape.
#include "kernels/cuda/act_quant_device.cuh"

namespace satin::kernels {
namespace {

constexpr int kValuesPerBlock = kThreads * kVector * kHeld;

struct StaticItem {
  const void *x, *scale;
  void* out;
  int64_t num_values;
  double top;
  const void* grad = nullptr;  ///< the backward's; `out` is then grad_x
  double* sums = nullptr;
};

/// body(divide, i, k) for each vector k of the block's chunks of kHeld vectors a thread, after load(i, k) for all of a
/// chunk; i: the vector's first value.
template <int V, class C, class Load, class Body>
__device__ __forceinline__ void for_block(const StaticItem& item, C scale, const Load& load, const Body& body) {
  const auto for_chunk = [&](int chunk, const auto& visit) {
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      const int64_t vector = (int64_t{blockIdx.x} * kVector / V + chunk) * kHeld + k;
      const int64_t i = (vector * kThreads + threadIdx.x) * V;
      if (i < item.num_values) visit(i, k);
    }
  };
  const auto run = [&](const auto& divide) {
    for (int chunk = 0; chunk < kVector / V; ++chunk) {
      for_chunk(chunk, load);
      for_chunk(chunk, [&](int64_t i, int k) { body(divide, i, k); });
    }
  };
  const Divider<C> divide(scale);
  plain_division(divide) ? run(PlainDivider<C>(scale)) : run(divide);
}

template <bool kFloat8, class X, int V>
__global__ void __launch_bounds__(kThreads) static_kernel(const StaticItem item) {
  using C = Compute<X>;
  const X* __restrict__ x = static_cast<const X*>(item.x);
  X* __restrict__ out = static_cast<X*>(item.out);
  const C scale = static_scale(*static_cast<const C*>(item.scale));
  const ActivationLevels<kFloat8, C> levels{static_cast<C>(item.top)};
  Pack<X, V> xs[kHeld];
  const auto load = [&](int64_t i, int k) { xs[k] = load_pack<V>(x + i); };
  for_block<V>(item, scale, load, [&](const auto& divide, int64_t i, int k) {
    Pack<X, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j)
      result.values[j] = store_as<X>(scale * levels.level(divide(load_as<C>(xs[k].values[j]))));
    store_pack<V>(out + i, result);
  });
}

template <bool kFloat8, class X, int V>
__global__ void __launch_bounds__(kThreads) static_backward_kernel(const StaticItem item) {
  using C = Compute<X>;
  const X* __restrict__ x = static_cast<const X*>(item.x);
  const X* __restrict__ grad = static_cast<const X*>(item.grad);
  X* __restrict__ grad_x = static_cast<X*>(item.out);
  const C scale = static_scale(*static_cast<const C*>(item.scale));
  const ActivationLevels<kFloat8, C> levels{static_cast<C>(item.top)};
  C sum = 0;
  Pack<X, V> xs[kHeld], gs[kHeld];
  const auto load = [&](int64_t i, int k) {
    xs[k] = load_pack<V>(x + i);
    gs[k] = load_pack<V>(grad + i);
  };
  for_block<V>(item, scale, load, [&](const auto& divide, int64_t i, int k) {
    Pack<X, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const C u = divide(load_as<C>(xs[k].values[j])), d = load_as<C>(gs[k].values[j]);
      const bool inside = levels.inside(u);
      result.values[j] = store_as<X>(inside ? d : C(0));
      sum += d * (levels.level(u) - (inside ? u : C(0)));
    }
    store_pack<V>(grad_x + i, result);
  });
  const double block_sum = team_sum(static_cast<double>(sum), kThreads);
  if (threadIdx.x == 0) item.sums[blockIdx.x] = block_sum;
}

/// One block: m times the sum of all blocks' sums.
template <class C>
__global__ void __launch_bounds__(kThreads)
    scale_gradient_kernel(const double* sums, int64_t num_sums, double multiplier, C* grad_scale) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < num_sums; i += kThreads) sum += sums[i];
  sum = team_sum(sum, kThreads);
  if (threadIdx.x == 0) *grad_scale = static_cast<C>(num_sums ? multiplier * sum : 0);
}

}  // namespace

int64_t act_quant_num_sums(Extent extent) {
  return (extent.num_rows * extent.num_columns + kValuesPerBlock - 1) / kValuesPerBlock;
}

void act_quant_static_cuda(ActivationFormat format, Extent extent, Dtype x_dtype, const void* x, const void* scale,
                           void* out, CUstream_st* stream) {
  check(format, extent);
  const int64_t num_values = extent.num_rows * extent.num_columns;
  if (num_values == 0) return;
  const StaticItem item{x, scale, out, num_values, top(format)};
  for_vectors(x_dtype, num_values, {x, out}, [&]<class X, int V>() {
    for_format(format, [&]<bool kFloat8>() {
      launch_kernel(static_kernel<kFloat8, X, V>, num_blocks(num_values, kValuesPerBlock), stream, item);
    });
  });
  check_launch("act_quant_static_cuda");
}

void act_quant_static_backward_cuda(ActivationFormat format, Extent extent, Dtype x_dtype, const void* grad,
                                    const void* x, const void* scale, void* grad_x, void* grad_scale, double* sums,
                                    CUstream_st* stream) {
  check(format, extent);
  const int64_t num_values = extent.num_rows * extent.num_columns, num_sums = act_quant_num_sums(extent);
  const StaticItem item{x, scale, grad_x, num_values, top(format), grad, sums};
  for_vectors(x_dtype, num_values, {x, grad, grad_x}, [&]<class X, int V>() {
    if (num_values != 0)
      for_format(format, [&]<bool kFloat8>() {
        launch_kernel(static_backward_kernel<kFloat8, X, V>, num_blocks(num_values, kValuesPerBlock), stream, item);
      });
    launch_kernel(scale_gradient_kernel<Compute<X>>, 1, stream, sums, num_sums, act_quant_multiplier(format, extent),
                  static_cast<Compute<X>*>(grad_scale));
  });
  check_launch("act_quant_static_backward_cuda");
}

}  // namespace satin::kernels
