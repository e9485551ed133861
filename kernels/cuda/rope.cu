// CUDA kernel of rope.h: a thread takes a vector of either half. Consecutive threads walk features, then heads, then
// tokens, as projections lie in memory.
#include "kernels/cuda/fake_quant_device.cuh"
#include "kernels/rope.h"

namespace satin::kernels {
namespace {

struct RopeItem {
  const void *x, *cos, *sin;
  void* y;
  RopeShape shape;
  RopeStrides from, to;
  int64_t num_vectors;
  int half_vectors, half;
  bool inverse;
};

template <class X, int V>
__global__ void __launch_bounds__(kThreads) rotate_kernel(const RopeItem item) {
  using C = Compute<X>;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= item.num_vectors) return;
  const int feature = static_cast<int>(index % item.half_vectors) * V;
  const int64_t rows = index / item.half_vectors, head = rows % item.shape.heads, tokens = rows / item.shape.heads;
  const int64_t token = tokens % item.shape.tokens, sequence = tokens / item.shape.tokens;
  const X* __restrict__ x = static_cast<const X*>(item.x) + sequence * item.from.sequence + head * item.from.head +
                            token * item.from.token + feature;
  X* __restrict__ y =
      static_cast<X*>(item.y) + sequence * item.to.sequence + head * item.to.head + token * item.to.token + feature;
  const int64_t angle = token * item.half + feature;
  const Pack<X, V> as = load_pack<V>(x), bs = load_pack<V>(x + item.half);
  const Pack<C, V> cos = load_pack<V>(static_cast<const C*>(item.cos) + angle);
  const Pack<C, V> sin = load_pack<V>(static_cast<const C*>(item.sin) + angle);
  Pack<X, V> first, second;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const C a = load_as<C>(as.values[v]), b = load_as<C>(bs.values[v]), c = cos.values[v];
    const C s = item.inverse ? -sin.values[v] : sin.values[v];
    first.values[v] = store_as<X>(a * c - b * s);
    second.values[v] = store_as<X>(b * c + a * s);
  }
  store_pack<V>(y, first);
  store_pack<V>(y + item.half, second);
}

bool fits(const RopeStrides& strides) {
  return strides.sequence % kVector == 0 && strides.head % kVector == 0 && strides.token % kVector == 0;
}

}  // namespace

void rope_cuda(const RopeShape& shape, bool inverse, Dtype dtype, const void* x, const RopeStrides& x_strides,
               const void* cos, const void* sin, void* y, const RopeStrides& y_strides, CUstream_st* stream) {
  if (shape.features < 2 || shape.features % 2 != 0)
    throw std::invalid_argument("rope: expected an even number of features, found " + std::to_string(shape.features));
  RopeItem item{x, cos, sin, y, shape, x_strides, y_strides, 0, 0, static_cast<int>(shape.features / 2), inverse};
  const auto run = [&]<class X, int V>() {
    item.half_vectors = item.half / V;
    item.num_vectors = shape.sequences * shape.heads * shape.tokens * item.half_vectors;
    const int64_t blocks = (item.num_vectors + kThreads - 1) / kThreads;
    if (blocks > 0x7fffffff) throw std::invalid_argument("rope: too many values for one launch");
    if (blocks > 0) launch_kernel(rotate_kernel<X, V>, static_cast<unsigned>(blocks), stream, item);
  };
  for_weight(dtype, [&]<class X>(Type<X>) {
    if constexpr (!std::is_same_v<X, double>) {
      if (fits_vectors(item.half, {x, cos, sin, y}) && fits(x_strides) && fits(y_strides))
        return run.template operator()<X, kVector>();
    }
    run.template operator()<X, 1>();
  });
  check_launch("rope_cuda");
}

}  // namespace satin::kernels
