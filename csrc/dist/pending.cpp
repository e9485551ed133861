#include "core/error.h"
#include "dist/work.h"

namespace satin::dist {

void Pending::wait() {
  if (work_) work_->wait();
  work_.reset();
}

}  // namespace satin::dist
