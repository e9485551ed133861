#include "bench/timer.h"
#include "core/error.h"

namespace satin::bench {

std::vector<double> time_cuda_graph(at::Device, int, const Call&) {
  throw UserError("this build has no CUDA code: install a CUDA toolkit and build again");
}

}  // namespace satin::bench
