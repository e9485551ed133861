// A command as one of several processes.
#pragma once
#include <functional>
#include <memory>

#include "config/schema.h"
#include "dist/communicator.h"
#include "dist/watchdog.h"

namespace satin::cli {

/// Before --gpus starts anything: UserError when this host has fewer GPUs, or another launcher is at work.
void check_gpus(const config::Config& config, int64_t gpus);

/// Runs `work` as the rank that the environment says: meets the others, makes sure that all have the same program,
/// configuration and data, and watches them. Only rank 0 is heard; warnings of the others carry "[rank 2]". The
/// watchdog starts paused: what precedes the first step takes as long as it takes.
void as_rank(const config::Config& config,
             const std::function<void(std::shared_ptr<dist::Communicator>, dist::Watchdog&)>& work);

}  // namespace satin::cli
