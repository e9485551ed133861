// CUDA kernel of add_rows.h: a block for each place of ids and a part of the columns; that of an id's first place adds
// up all its rows.
//
// A frequent token has some percent of all places, one after another in its block: kAtOnce rows are asked for at a
// time, so that 1,600 rows of 2,048 take 100 of the memory's answers, not 1,600.
// Tried: a warp for each of eight partial sums and 32 vectors of columns a block, 128 rows at a time. Most places are
// no id's first, and eight times the blocks that only end cost more than a frequent token saves (one trace on H200,
// 32,768 bf16 rows of 2,048: 1.65 ms, not .76).
#include "kernels/add_rows.h"
#include "kernels/cuda/fake_quant_device.cuh"

namespace satin::kernels {
namespace {

constexpr int kAtOnce = 16;

template <class X, int V>
__global__ void __launch_bounds__(kThreads) add_rows_kernel(const AddRows<Compute<X>> call, unsigned parts) {
  using C = Compute<X>;
  const int64_t first = blockIdx.x / parts;
  const int64_t id = call.ids[first];
  if (first > 0 && call.ids[first - 1] == id) return;
  const int64_t column = (static_cast<int64_t>(blockIdx.x % parts) * kThreads + threadIdx.x) * V;
  if (column >= call.width) return;
  const X* const rows = static_cast<const X*>(call.rows) + column;

  C sum[V] = {};
  for (int64_t begin = first, left = 0; left == 0; begin += kAtOnce) {
    Pack<X, V> row[kAtOnce];
    int num_rows = 0;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const bool belongs = begin + i < call.num_rows && call.ids[begin + i] == id;  // rising: all before it do too
      if (belongs) row[i] = load_pack<V>(rows + call.order[begin + i] * call.width);
      num_rows += belongs;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (i < num_rows)
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += load_as<C>(row[i].values[v]);
    left = kAtOnce - num_rows;
  }
  C* const to = call.sums + id * call.width + column;
#pragma unroll
  for (int v = 0; v < V; ++v) to[v] += sum[v];
}

template <class X>
void add_rows(const AddRows<Compute<X>>& call, CUstream_st* stream) {
  if (call.num_rows == 0 || call.width == 0) return;
  const auto run = [&]<int V>() {
    const int64_t parts = (call.width / V + kThreads - 1) / kThreads;
    if (call.num_rows > 0x7fffffff / parts)
      throw std::invalid_argument("add_rows: " + std::to_string(call.num_rows) + " rows of " +
                                  std::to_string(call.width) + " are too many for one launch");
    launch_kernel(add_rows_kernel<X, V>, static_cast<unsigned>(call.num_rows * parts), stream, call,
                  static_cast<unsigned>(parts));
    check_launch("add_rows_cuda");
  };
  if constexpr (!std::is_same_v<X, double>) {
    if (fits_vectors(call.width, {call.rows, call.sums})) return run.template operator()<kVector>();
  }
  run.template operator()<1>();
}

}  // namespace

void add_rows_cuda(const AddRows<float>& call, Dtype rows, CUstream_st* stream) {
  if (rows == Dtype::kDouble) throw std::invalid_argument("add_rows: rows in double have sums in double");
  if (rows == Dtype::kBFloat16) return add_rows<__nv_bfloat16>(call, stream);
  add_rows<float>(call, stream);
}

void add_rows_cuda(const AddRows<double>& call, CUstream_st* stream) { add_rows<double>(call, stream); }

}  // namespace satin::kernels
