#include "dist/store.h"

#include <arpa/inet.h>
#include <c10/util/Logging.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "core/error.h"

namespace satin::dist {
namespace {

std::string numeric(const sockaddr* address, socklen_t length) {
  char text[NI_MAXHOST] = "";
  getnameinfo(address, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
  return text;
}

bool is_loopback(const std::string& address) { return address.starts_with("127.") || address == "::1"; }

/// The address that packets to `host` leave from; nothing is sent. Empty when it cannot be told.
std::string address_towards(const std::string& host, int64_t port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return "";
  std::string address;
  for (const addrinfo* at = found; at && address.empty(); at = at->ai_next) {
    const int fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
    if (fd < 0) continue;
    sockaddr_storage own{};
    socklen_t length = sizeof own;
    if (connect(fd, at->ai_addr, at->ai_addrlen) == 0 &&
        getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length) == 0)
      address = numeric(reinterpret_cast<const sockaddr*>(&own), length);
    close(fd);
  }
  freeaddrinfo(found);
  return address;
}

std::string first_outside_address() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return "";
  std::string address;
  for (const ifaddrs* at = list; at && address.empty(); at = at->ifa_next)
    if (at->ifa_addr && at->ifa_addr->sa_family == AF_INET && (at->ifa_flags & IFF_UP) &&
        !(at->ifa_flags & IFF_LOOPBACK))
      address = numeric(at->ifa_addr, sizeof(sockaddr_in));
  freeifaddrs(list);
  return address;
}

}  // namespace

c10::intrusive_ptr<c10d::Store> connect_store(const Launch& launch, bool serve, double timeout_s) {
  // c10d writes stack traces about what is reported in words.
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = c10::GLOG_FATAL;
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(launch.master_port);
  options.isServer = serve;
  options.waitWorkers = false;
  options.timeout = std::chrono::milliseconds(std::llround(timeout_s * 1000));
  try {
    return c10::make_intrusive<c10d::PrefixStore>(launch.store_prefix,
                                                  c10::make_intrusive<c10d::TCPStore>(launch.master_address, options));
  } catch (const c10::Error& error) {
    const std::string where = cat(launch.master_address, ":", launch.master_port);
    if (serve)
      throw UserError(cat(launch.text(false), ": cannot listen on port ", launch.master_port,
                          " for the other ranks: set MASTER_PORT to a free one\n", error.what_without_backtrace()));
    throw PeerError(cat(launch.text(false), ": nobody answers at ", where, ", where ",
                        launch.store_is_served ? "the launcher" : "rank 0",
                        " is expected: is it running, and is the port open?\n", error.what_without_backtrace()));
  }
}

std::string own_address(const Launch& launch) {
  if (launch.one_host) return "127.0.0.1";
  const std::string address = address_towards(launch.master_address, launch.master_port);
  // The master's own name may mean its loopback address there, which the others cannot use.
  if (!address.empty() && !is_loopback(address)) return address;
  const std::string outside = first_outside_address();
  return outside.empty() ? "127.0.0.1" : outside;
}

}  // namespace satin::dist
