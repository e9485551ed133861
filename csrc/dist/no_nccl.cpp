#include "core/error.h"
#include "dist/backends.h"

namespace satin::dist {

std::shared_ptr<Communicator> make_nccl(c10::intrusive_ptr<c10d::Store>, int64_t, int64_t, c10::Device,
                                        std::shared_ptr<Communicator>, double) {
  throw UserError(
      "several GPUs need NCCL, which this build lacks: install a CUDA toolkit (nvcc on PATH; nccl.h comes with it or "
      "with the torch wheel), remove the build folder and run scripts/build");
}

}  // namespace satin::dist
