// CUDA kernels of rms_norm.h: a row is read once.
//
// A team of threads owns a row: part of a warp, a warp, or the block. A thread holds H vectors of its row in registers.
// The backward's blocks take many rows each, and sum the weight's gradient in registers on the way; one row of partial
// sums a block is what a second, small kernel adds up.
#include <algorithm>

#include "kernels/cuda/fake_quant_device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/rms_norm.h"

namespace satin::kernels {
namespace {

constexpr int64_t kBackwardBlocks = 528;  ///< four for each multiprocessor of a large device: sums depend on it

/// Loops over a row's H vectors are unrolled up to here: longer rows that are not in vectors lie in local memory, where
/// unrolling only takes long to compile.
constexpr int kMostUnrolled = 8;

struct Rows {
  int64_t num_rows;
  int num_columns, log2_team;
  double eps;

  int64_t rows_a_block() const { return kThreads >> log2_team; }
};

template <class X, class O, int V, int H>
__global__ void __launch_bounds__(kThreads) norm_kernel(const Rows rows, const RmsNormForward call) {
  using C = Compute<X>;
  [[maybe_unused]] constexpr int kUnroll = H > kMostUnrolled ? 1 : H;
  const int team = 1 << rows.log2_team, lane = static_cast<int>(threadIdx.x) & (team - 1);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads >> rows.log2_team) +
                      (static_cast<int>(threadIdx.x) >> rows.log2_team);
  const bool active = row < rows.num_rows;  // every thread of the block takes part in the sums
  const int columns = active ? rows.num_columns : 0;
  const int64_t first = (active ? row : 0) * rows.num_columns;
  const X* __restrict__ x = static_cast<const X*>(call.x) + first;
  const O* __restrict__ delta = static_cast<const O*>(call.delta) + (call.delta ? first : 0);
  X* __restrict__ sum = static_cast<X*>(call.sum) + (call.delta ? first : 0);
  const C* __restrict__ weight = static_cast<const C*>(call.weight);
  O* __restrict__ y = static_cast<O*>(call.y) + first;

  let_dependents_start();
  wait_for_dependencies();
  C values[H][V] = {};
#pragma unroll kUnroll
  for (int h = 0; h < H; ++h) {
    const int i = (h * team + lane) * V;
    if (i >= columns) continue;
    const Pack<X, V> from = load_pack<V>(x + i);
#pragma unroll
    for (int v = 0; v < V; ++v) values[h][v] = load_as<C>(from.values[v]);
  }
  if (call.delta) {
#pragma unroll kUnroll
    for (int h = 0; h < H; ++h) {
      const int i = (h * team + lane) * V;
      if (i >= columns) continue;
      const Pack<O, V> added = load_pack<V>(delta + i);
      Pack<X, V> result;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        values[h][v] += load_as<C>(added.values[v]);
        result.values[v] = store_as<X>(values[h][v]);
      }
      store_pack<V>(sum + i, result);
    }
  }
  C squares = 0;
#pragma unroll kUnroll
  for (int h = 0; h < H; ++h)
#pragma unroll
    for (int v = 0; v < V; ++v) squares += values[h][v] * values[h][v];
  const C mean = team_sum(squares, team) / static_cast<C>(rows.num_columns);
  const C scale = C(1) / sqrt(mean + static_cast<C>(rows.eps));
#pragma unroll kUnroll
  for (int h = 0; h < H; ++h) {
    const int i = (h * team + lane) * V;
    if (i >= columns) continue;
    const Pack<C, V> w = load_pack<V>(weight + i);
    Pack<O, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.values[v] = store_as<O>(values[h][v] * scale * w.values[v]);
    store_pack<V>(y + i, result);
  }
  if (active && lane == 0) static_cast<C*>(call.rstd)[row] = scale;
}

template <class X, class O, int V, int H>
__global__ void __launch_bounds__(kThreads)
    norm_backward_kernel(const Rows rows, const int64_t num_blocks, const RmsNormBackward call) {
  using C = Compute<X>;
  [[maybe_unused]] constexpr int kUnroll = H > kMostUnrolled ? 1 : H;
  const int team = 1 << rows.log2_team, lane = static_cast<int>(threadIdx.x) & (team - 1);
  const int teams = kThreads >> rows.log2_team, own_team = static_cast<int>(threadIdx.x) >> rows.log2_team;
  const C* __restrict__ weight = static_cast<const C*>(call.weight);
  C w[H][V] = {}, totals[H][V] = {};
#pragma unroll kUnroll
  for (int h = 0; h < H; ++h) {
    const int i = (h * team + lane) * V;
    if (i >= rows.num_columns) continue;
    const Pack<C, V> from = load_pack<V>(weight + i);
#pragma unroll
    for (int v = 0; v < V; ++v) w[h][v] = from.values[v];
  }
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * teams; base < rows.num_rows; base += num_blocks * teams) {
    const int64_t row = base + own_team;
    const bool active = row < rows.num_rows;
    const int columns = active ? rows.num_columns : 0;
    const int64_t first = (active ? row : 0) * rows.num_columns;
    const O* __restrict__ grad_y = static_cast<const O*>(call.grad_y) + first;
    const X* __restrict__ sum = static_cast<const X*>(call.sum) + first;
    const C scale = static_cast<const C*>(call.rstd)[active ? row : 0];
    C normal[H][V] = {}, g[H][V] = {};
    C product = 0;
#pragma unroll kUnroll
    for (int h = 0; h < H; ++h) {
      const int i = (h * team + lane) * V;
      if (i >= columns) continue;
      const Pack<O, V> gradient = load_pack<V>(grad_y + i);
      const Pack<X, V> from = load_pack<V>(sum + i);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        normal[h][v] = load_as<C>(from.values[v]) * scale;
        const C dy = load_as<C>(gradient.values[v]);
        totals[h][v] += dy * normal[h][v];
        g[h][v] = dy * w[h][v];
        product += g[h][v] * normal[h][v];
      }
    }
    const C mean = team_sum(product, team) / static_cast<C>(rows.num_columns);
#pragma unroll kUnroll
    for (int h = 0; h < H; ++h) {
      const int i = (h * team + lane) * V;
      if (i >= columns) continue;
      Pack<X, V> later{};
      if (call.grad_later) later = load_pack<V>(static_cast<const X*>(call.grad_later) + first + i);
      Pack<X, V> grad_x;
      Pack<O, V> grad_delta;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        C result = scale * (g[h][v] - normal[h][v] * mean);
        if (call.grad_later) result += load_as<C>(later.values[v]);
        grad_x.values[v] = store_as<X>(result);
        grad_delta.values[v] = store_as<O>(result);
      }
      store_pack<V>(static_cast<X*>(call.grad_x) + first + i, grad_x);
      if (call.grad_delta) store_pack<V>(static_cast<O*>(call.grad_delta) + first + i, grad_delta);
    }
  }
  // The block's teams, slice by slice of the columns.
  __shared__ C slice[kThreads * V];
  C* __restrict__ partial = static_cast<C*>(call.partials) + static_cast<int64_t>(blockIdx.x) * rows.num_columns;
#pragma unroll kUnroll
  for (int h = 0; h < H; ++h) {
    __syncthreads();
#pragma unroll
    for (int v = 0; v < V; ++v) slice[(own_team * team + lane) * V + v] = totals[h][v];
    __syncthreads();
    for (int c = static_cast<int>(threadIdx.x); c < team * V; c += kThreads) {
      const int column = h * team * V + c;
      if (column >= rows.num_columns) break;
      C total = 0;
      for (int t = 0; t < teams; ++t) total += slice[t * team * V + c];
      partial[column] = total;
    }
  }
}

/// grad_weight [C] = sum over rows of partials [P, C]: a warp's lanes are columns, the block's warps share the rows.
template <class C>
__global__ void __launch_bounds__(kThreads)
    sum_partials_kernel(const C* __restrict__ partials, int64_t num_partials, int num_columns, C* __restrict__ out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int column = static_cast<int>(blockIdx.x) * kWarp + lane;
  C total = 0;
  if (column < num_columns)
    for (int64_t row = warp; row < num_partials; row += kThreads / kWarp) total += partials[row * num_columns + column];
  __shared__ C warps[kThreads];
  warps[threadIdx.x] = total;
  __syncthreads();
  if (warp != 0 || column >= num_columns) return;
  for (int i = 1; i < kThreads / kWarp; ++i) total += warps[i * kWarp + lane];
  out[column] = total;
}

/// body.template operator()<X, O>() for the pairs of the contract.
template <class Body>
void for_pair(Dtype x_dtype, Dtype y_dtype, const Body& body) {
  if (x_dtype == Dtype::kFloat && y_dtype == Dtype::kBFloat16) return body.template operator()<float, __nv_bfloat16>();
  if (x_dtype != y_dtype) throw std::invalid_argument("rms_norm: expected one dtype, or a bfloat16 result of float32");
  for_weight(x_dtype, [&]<class X>(Type<X>) { body.template operator()<X, X>(); });
}

/// body.template operator()<V, H>() with a team for the row; what it holds is at least the columns.
template <class X, class Body>
void for_held(Rows& rows, std::initializer_list<const void*> pointers, const Body& body) {
  const auto choose = [&](int vector, int held) {
    rows.log2_team = 0;
    while (rows.log2_team < 5 && (int64_t{held} * vector << rows.log2_team) < rows.num_columns) ++rows.log2_team;
    if ((int64_t{held} * vector << rows.log2_team) < rows.num_columns) rows.log2_team = 8;
  };
  static_assert(kThreads == 1 << 8 && kWarp == 1 << 5 && kVector * kThreads * 8 == kMaxNormColumns);
  const int columns = rows.num_columns;
  if constexpr (!std::is_same_v<X, double>) {
    if (fits_vectors(columns, pointers)) {
      // One vector a thread for short rows and for those of the block, up to four where a warp can own the row.
      if (columns <= 256 || (columns > 1024 && columns <= 2048)) {
        choose(kVector, 1);
        return body.template operator()<kVector, 1>();
      }
      if (columns <= 512 || (columns > 1024 && columns <= 4096)) {
        choose(kVector, 2);
        return body.template operator()<kVector, 2>();
      }
      if (columns <= 1024 || columns <= 8192) {
        choose(kVector, 4);
        return body.template operator()<kVector, 4>();
      }
      choose(kVector, 8);
      return body.template operator()<kVector, 8>();
    }
  }
  if (columns <= 4 * kThreads) {
    choose(1, 4);
    return body.template operator()<1, 4>();
  }
  choose(1, 64);
  body.template operator()<1, 64>();
}

Rows make_rows(Extent extent, double eps) {
  if (extent.num_columns < 1 || extent.num_columns > kMaxNormColumns)
    throw std::invalid_argument("rms_norm: expected 1 to " + std::to_string(kMaxNormColumns) + " columns, found " +
                                std::to_string(extent.num_columns));
  return {extent.num_rows, static_cast<int>(extent.num_columns), 0, eps};
}

}  // namespace

int64_t rms_norm_num_partials_cuda(Extent extent) { return std::min(extent.num_rows, kBackwardBlocks); }

void rms_norm_cuda(Extent extent, double eps, Dtype x_dtype, Dtype y_dtype, const RmsNormForward& call,
                   CUstream_st* stream) {
  Rows rows = make_rows(extent, eps);
  if (rows.num_rows == 0) return;
  for_pair(x_dtype, y_dtype, [&]<class X, class O>() {
    for_held<X>(rows, {call.x, call.delta, call.weight, call.sum, call.y}, [&]<int V, int H>() {
      const int64_t blocks = (rows.num_rows + rows.rows_a_block() - 1) / rows.rows_a_block();
      if (blocks > 0x7fffffff) throw std::invalid_argument("rms_norm: too many rows for one launch");
      // A step of text has one between kernels that begin early.
      launch_early("rms_norm_cuda", norm_kernel<X, O, V, H>,
                   {.blocks = static_cast<unsigned>(blocks), .threads = kThreads}, stream, rows, call);
    });
  });
}

void rms_norm_backward_cuda(Extent extent, Dtype x_dtype, Dtype y_dtype, const RmsNormBackward& call,
                            CUstream_st* stream) {
  Rows rows = make_rows(extent, 0);
  const int64_t num_partials = rms_norm_num_partials_cuda(extent);
  for_pair(x_dtype, y_dtype, [&]<class X, class O>() {
    using C = Compute<X>;
    if (rows.num_rows > 0)
      for_held<X>(rows, {call.grad_y, call.grad_later, call.sum, call.weight, call.grad_x, call.grad_delta},
                  [&]<int V, int H>() {
                    // Blocks beyond the rows write zeros: every partial is read.
                    launch_kernel(norm_backward_kernel<X, O, V, H>, static_cast<unsigned>(num_partials), stream, rows,
                                  num_partials, call);
                  });
    launch_kernel(sum_partials_kernel<C>, static_cast<unsigned>((extent.num_columns + kWarp - 1) / kWarp), stream,
                  static_cast<const C*>(call.partials), num_partials, rows.num_columns,
                  static_cast<C*>(call.grad_weight));
  });
  check_launch("rms_norm_backward_cuda");
}

}  // namespace satin::kernels
