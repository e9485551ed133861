#include "core/error.h"
#include "dist/backends.h"

namespace satin::dist {

bool has_gloo() { return false; }

std::shared_ptr<Communicator> make_gloo(c10::intrusive_ptr<c10d::Store>, int64_t, int64_t, const std::string&, double) {
  throw UserError(
      "several processes on the CPU need Gloo, which this build lacks: install libgloo-dev, remove the build folder "
      "and run scripts/build");
}

}  // namespace satin::dist
