// The groups that c10d offers. A backend that the build lacks is a file that throws by name.
#pragma once
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "dist/communicator.h"

namespace satin::dist {

/// How long c10d itself waits in a collective: in effect for ever, since the watchdog is what bounds a loss, and others
/// may wait long for the one rank that evaluates.
inline constexpr std::chrono::hours kNoLimit{24 * 30};

/// Whether this build has Gloo: CPU groups, and host values beside NCCL.
bool has_gloo();
/// A CPU group; its connections are made here, within timeout_s. `address`: of this host's network interface, unless
/// GLOO_SOCKET_IFNAME names one. Throws PeerError when a rank does not come.
std::shared_ptr<Communicator> make_gloo(c10::intrusive_ptr<c10d::Store> store, int64_t rank, int64_t size,
                                        const std::string& address, double timeout_s);
/// A group of GPUs, one a rank. Host values go over `host`, or over the GPUs when it is null.
std::shared_ptr<Communicator> make_nccl(c10::intrusive_ptr<c10d::Store> store, int64_t rank, int64_t size,
                                        c10::Device device, std::shared_ptr<Communicator> host, double timeout_s);

}  // namespace satin::dist
