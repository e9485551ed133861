#include "core/interrupt.h"

#include <atomic>
#include <csignal>

namespace satin {
namespace {
std::atomic<int> pending{0};

void handle(int signal) {
  pending.store(signal);
  std::signal(signal, SIG_DFL);
}
}  // namespace

void install_interrupt_handlers() {
  std::signal(SIGINT, handle);
  std::signal(SIGTERM, handle);
}

int interrupt_signal() { return pending.load(); }

}  // namespace satin
