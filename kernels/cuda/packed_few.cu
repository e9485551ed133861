// Two to four rows of x times a packed weight (packed_decode_device.cuh). A file of its own, so that two
// processors compile.
#include "kernels/cuda/packed_decode_device.cuh"

namespace satin::kernels {

void packed_few_cuda(const DecodeArgs& args, CUstream_st* stream) { launch_for<kMostHalfRows>(args, stream); }

}  // namespace satin::kernels
