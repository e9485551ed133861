// Sums of rows by their ids: the gradient of an embedding's lookups.
//
// Shapes    ids [N], rising; order [N]: rows[order[i]] is the row of ids[i]; rows [N, H]; sums [V, H] float.
// Contract  sums[v] += the sum of the rows of id v, added up in float in the order of i: the same in every run.
// Errors    std::invalid_argument for sizes, std::runtime_error for CUDA. Ids are not looked at: 0 ... V - 1.
#pragma once
#include <cstdint>

struct CUstream_st;  // cudaStream_t

namespace satin::kernels {

struct AddRows {
  int64_t num_rows, width;
  const int64_t *ids, *order;
  const void* rows;  ///< T
  float* sums;
};

/// T: float, bfloat16 (uint16_t to the caller). Asynchronous on `stream`.
template <class T>
void add_rows_cuda(const AddRows& call, CUstream_st* stream);

}  // namespace satin::kernels
