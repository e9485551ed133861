// Codes, scales and zeros of a weight -> packed_weight.h's layout, on a GPU: what training does once a step.
#pragma once
#include "kernels/packed_matmul.h"

struct CUstream_st;  // cudaStream_t

namespace satin::kernels {

struct PackArgs {
  PackedShape shape;
  const uint8_t* codes;  ///< [N, K], below 2^bits
  const float* scales;   ///< [N, G]
  const int32_t* zeros;  ///< [N, G], 0 .. 255; or null
  Half scale_dtype;      ///< that scales are rounded to
  uint32_t* words;       ///< [num_words]
  void* scale_pairs;     ///< [2 num_pairs]
  uint8_t* zero_pairs;   ///< the same; null where zeros is
};
/// The words of pack_codes, and the scales and zeros at scale_index; what fills rows up is 0. Asynchronous on `stream`.
/// Errors: std::invalid_argument for a bad shape, std::runtime_error for CUDA.
void pack_weight_cuda(const PackArgs& args, CUstream_st* stream);

}  // namespace satin::kernels
