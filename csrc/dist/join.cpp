#include <chrono>
#include <cmath>
#include <csignal>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "core/error.h"
#include "dist/backends.h"
#include "dist/launch.h"
#include "dist/store.h"

namespace satin::dist {
namespace {

/// Every rank signs in; who does not within timeout_s is named.
void meet(c10d::Store& store, const Launch& launch, double timeout_s) {
  std::vector<std::string> keys;
  for (int64_t rank = 0; rank < launch.size; ++rank) keys.push_back(cat("here/", rank));
  store.set(keys[static_cast<size_t>(launch.rank)], launch.host);
  std::string names;
  size_t num_missing = 0;
  try {
    store.wait(keys, std::chrono::milliseconds(std::llround(timeout_s * 1000)));
    return;
  } catch (const c10::Error&) {
    for (int64_t rank = 0; rank < launch.size; ++rank)
      if (!store.check({keys[static_cast<size_t>(rank)]}))
        if (++num_missing <= 8) names += cat(num_missing == 1 ? "" : ", ", rank);
    if (launch.rank == 0) std::this_thread::sleep_for(std::chrono::seconds(1));  // the others ask its store the same
  }
  throw PeerError(cat(launch.text(false), ": ", num_missing, " of ", launch.size, " ranks did not come within ",
                      timeout_s, " s: ", names, num_missing > 8 ? ", ..." : ""));
}

}  // namespace

std::shared_ptr<Communicator> join(const Launch& launch, c10::Device device, double timeout_s) {
  if (launch.size == 1) return Communicator::alone();
  std::signal(SIGPIPE, SIG_IGN);  // a lost rank is an error that is told, not the end of this one
  const bool serves = launch.rank == 0 && !launch.store_is_served;
  auto store = connect_store(launch, serves, timeout_s);
  const auto part = [&](const char* name) { return c10::make_intrusive<c10d::PrefixStore>(name, store); };
  try {
    meet(*store, launch, timeout_s);
  } catch (const c10::Error& error) {
    throw PeerError(
        cat(launch.text(false), ": lost the store at ", launch.master_address, ": ", error.what_without_backtrace()));
  }
  std::shared_ptr<Communicator> host;
  if (device.is_cpu() || has_gloo())
    host = make_gloo(part("gloo"), launch.rank, launch.size, own_address(launch), timeout_s);
  return device.is_cpu() ? host : make_nccl(part("nccl"), launch.rank, launch.size, device, host, timeout_s);
}

}  // namespace satin::dist
