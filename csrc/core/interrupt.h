// SIGINT and SIGTERM as a flag that long work polls: it saves and then throws InterruptedError (exit 3).
#pragma once

namespace satin {

/// Installs the handlers, in commands that poll; elsewhere a signal ends the process as usual. A second signal of the
/// same kind ends the process at once.
void install_interrupt_handlers();
/// The signal that asked to stop, or 0.
int interrupt_signal();

}  // namespace satin
