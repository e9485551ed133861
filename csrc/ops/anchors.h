// One function in each file of registrations. ops.cpp calls them, so that whoever uses a wrapper links the
// registrations.
#pragma once

namespace satin::ops {

void anchor_schema();
void anchor_cpu();
void anchor_autograd();
void anchor_cuda();

}  // namespace satin::ops
