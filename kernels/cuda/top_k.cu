// The k largest of every row, sorted: one block a row, one pass.
#include "kernels/cuda/row_top_k.cuh"

namespace satin::kernels {
namespace {

template <class S, int W>
__global__ void __launch_bounds__(kThreads)
    top_k_kernel(const S* logits, int num_columns, int k, S* values, int64_t* ids) {
  constexpr int kTile = kThreads * W;
  const int64_t row = blockIdx.x;
  const S* __restrict__ x = logits + row * num_columns;
  __shared__ typename RowTopK<S, W>::Storage storage;
  RowTopK<S, W> best(storage, k, /*exclude_infinity=*/false);
  const auto ignore = [](S, S) {};
  for (int begin = 0; begin < num_columns; begin += kTile) {
    const int i = begin + static_cast<int>(threadIdx.x) * W;
    Pack<S, W> pack = {};
    if (i < num_columns) pack = load_pack<W>(x + i);
    S other[W] = {};
    best.offer(pack.values, other, i, num_columns, ignore);
  }
  best.finish(ignore);
  for (int i = threadIdx.x; i < k; i += kThreads) {
    values[row * k + i] = best.z(i);
    ids[row * k + i] = best.id(i);
  }
}

template <class S, int W>
void launch(Extent extent, int64_t k, const void* logits, void* values, int64_t* ids, CUstream_st* stream) {
  launch_kernel(top_k_kernel<S, W>, static_cast<unsigned>(extent.num_rows), stream, static_cast<const S*>(logits),
                static_cast<int>(extent.num_columns), static_cast<int>(k), static_cast<S*>(values), ids);
}

}  // namespace

void top_k_cuda(Extent extent, int64_t k, Dtype dtype, const void* logits, void* values, int64_t* ids,
                CUstream_st* stream) {
  if (k < 1 || k > extent.num_columns || k > kMaxTopK)
    throw std::invalid_argument("top_k_cuda: k is 1 to " + std::to_string(std::min(extent.num_columns, kMaxTopK)) +
                                ", found " + std::to_string(k));
  if (extent.num_columns > 0x7fffffff - 4096 || extent.num_rows > 0x7fffffff)
    throw std::invalid_argument("top_k_cuda: more than 2^31 rows or columns");
  if (extent.num_rows == 0) return;
  if (dtype == Dtype::kDouble)
    launch<double, 1>(extent, k, logits, values, ids, stream);
  else if (dtype != Dtype::kFloat)
    throw std::invalid_argument("top_k_cuda: logits are float or double");
  else if (extent.num_columns % 4 == 0 && aligned({logits}))
    launch<float, 4>(extent, k, logits, values, ids, stream);
  else
    launch<float, 1>(extent, k, logits, values, ids, stream);
  check_launch("top_k_cuda");
}

}  // namespace satin::kernels
