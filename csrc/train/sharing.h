// Which strategy a job takes, and what that means (dist/sharing.h).
#pragma once
#include <memory>

#include "config/schema.h"
#include "dist/sharing.h"

namespace satin::train {

/// Throws UserError when the job cannot be shared so: fewer samples a step than processes, LGR with several, hosts with
/// unequal numbers of processes for hybrid. `device`: where this process trains.
dist::Sharing make_sharing(const config::Config& config, std::shared_ptr<dist::Communicator> world, at::Device device,
                           at::ScalarType compute_dtype);

}  // namespace satin::train
