// Sums of rows by their ids: the gradient of an embedding's lookups.
//
// Shapes    ids [N], rising; order [N]: the row of ids[i] is rows[order[i]]; rows [N, H]; sums [V, H].
// Dtypes    CPU: T (float or double). CUDA: rows float or bfloat16 with sums in float, or both in double.
// Contract  sums[v] += the sum of the rows of id v, from the first i on, in the sums' dtype. Repeats bit for bit.
// Errors    std::invalid_argument for sizes, std::runtime_error for CUDA. Ids are not checked: 0 ... V - 1.
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

template <class T>
struct AddRows {
  int64_t num_rows, width;  ///< N, H
  const int64_t *ids, *order;
  const void* rows;  ///< CPU: T
  T* sums;
};

/// CPU, one thread: columns [begin, end). T: float, double.
template <class T>
void add_rows_cpu(int64_t begin, int64_t end, const AddRows<T>& call);

/// Asynchronous on `stream`. Pointers are device memory.
void add_rows_cuda(const AddRows<float>& call, Dtype rows, CUstream_st* stream);
void add_rows_cuda(const AddRows<double>& call, CUstream_st* stream);

}  // namespace satin::kernels
