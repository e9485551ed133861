// The key-value store in which ranks meet: c10d's TCPStore, served by rank 0 or by the launcher.
#pragma once
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "dist/launch.h"

namespace satin::dist {

/// A connection of its own; `serve`: and the server (rank 0, once, unless the launcher serves). Keys carry the
/// launch's prefix. Throws PeerError when it cannot be reached within timeout_s.
c10::intrusive_ptr<c10d::Store> connect_store(const Launch& launch, bool serve, double timeout_s);

/// The address of this host as seen from the others.
std::string own_address(const Launch& launch);

}  // namespace satin::dist
