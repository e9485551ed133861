// What a step of text ends with: the likeliest token.
//
// Shapes    logits [M, V], rows `stride` apart; ids [M].
// Contract  ids[m] = the first place of the largest of logits[m]; a NaN is larger than all numbers.
// Errors    std::invalid_argument for sizes, std::runtime_error for CUDA.
#pragma once
#include <cstdint>

struct CUstream_st;  // cudaStream_t

namespace satin::kernels {

struct MostLikely {
  int64_t num_rows, num_columns;  ///< columns: 1 ... 2^31 - 2^16
  const float* logits;
  int64_t stride;
  int64_t* ids;
};
/// Needs sm_90. Asynchronous on `stream`; begins before the kernel before it has ended, and waits for its results.
void most_likely_cuda(const MostLikely& call, CUstream_st* stream);

}  // namespace satin::kernels
