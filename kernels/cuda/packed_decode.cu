// One row of x times a packed weight, and where more rows go.
#include "kernels/cuda/packed_decode_device.cuh"

namespace satin::kernels {

void packed_decode_cuda(const DecodeArgs& args, CUstream_st* stream) {
  check(args);
  if (args.num_rows > kMostHalfRows)
    packed_skinny_cuda(args, stream);
  else if (args.num_rows > 1)
    packed_few_cuda(args, stream);
  else
    launch_for<1>(args, stream);
}

}  // namespace satin::kernels
