// What a collective under way is made of; for the backends' files.
#pragma once
#include "dist/communicator.h"

namespace satin::dist {

struct Pending::Work {
  virtual ~Work() = default;
  virtual void wait() = 0;
};

}  // namespace satin::dist
