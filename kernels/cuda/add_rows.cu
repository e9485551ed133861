// CUDA kernel of add_rows.h: a block for each place of ids and 32 vectors of columns; that of an id's first place adds
// up all its rows.
//
// A frequent token has some percent of all places: a warp for each partial sum and kAtOnce rows asked for at a time, so
// that 3,300 rows take 26 of the memory's answers one after another, not 3,300.
#include "kernels/add_rows.h"
#include "kernels/cuda/fake_quant_device.cuh"

namespace satin::kernels {
namespace {

constexpr int kAtOnce = 16;
static_assert(kThreads == kWarp * kAddRowsParts);

template <class X, int V>
__global__ void __launch_bounds__(kThreads) add_rows_kernel(const AddRows<Compute<X>> call, unsigned parts) {
  using C = Compute<X>;
  constexpr int kColumns = kWarp * V;
  const int64_t first = blockIdx.x / parts;
  const int64_t id = call.ids[first];
  if (first > 0 && call.ids[first - 1] == id) return;
  const int64_t begin = static_cast<int64_t>(blockIdx.x % parts) * kColumns;
  const int part = threadIdx.x / kWarp, column = threadIdx.x % kWarp * V;
  const bool inside = begin + column < call.width;
  const X* const rows = static_cast<const X*>(call.rows) + begin + column;

  C sum[V] = {};
  for (int64_t i = first + part, left = 0; left == 0; i += kAddRowsParts * kAtOnce) {
    Pack<X, V> row[kAtOnce];
    int num_rows = 0;
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int64_t at = i + j * kAddRowsParts;
      if (!inside || at >= call.num_rows) continue;
      const int64_t owner = call.ids[at], place = call.order[at];  // both at once
      if (owner != id) continue;                                   // rising: nor does any after it belong
      row[j] = load_pack<V>(rows + place * call.width);
      ++num_rows;
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j)
      if (j < num_rows)
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += load_as<C>(row[j].values[v]);
    left = kAtOnce - num_rows;
  }
  __shared__ C sums[kAddRowsParts][kColumns];
#pragma unroll
  for (int v = 0; v < V; ++v) sums[part][column + v] = sum[v];
  __syncthreads();
  const int64_t end = call.width - begin;
  for (int c = threadIdx.x; c < kColumns && c < end; c += kThreads) {
    C total = sums[0][c];
#pragma unroll
    for (int p = 1; p < kAddRowsParts; ++p) total += sums[p][c];
    call.sums[id * call.width + begin + c] += total;
  }
}

template <class X>
void add_rows(const AddRows<Compute<X>>& call, CUstream_st* stream) {
  if (call.num_rows == 0 || call.width == 0) return;
  const auto run = [&]<int V>() {
    const int64_t parts = (call.width / V + kWarp - 1) / kWarp;
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
