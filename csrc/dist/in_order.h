// What rank 0 does for all, or before all.
#pragma once
#include <functional>

#include "dist/communicator.h"

namespace satin::dist {

/// Runs `act` on rank 0 while the others wait. What it throws there ends the others too: UserError with the same text.
void on_first(Communicator& world, const std::function<void()>& act);

/// The same, and then on the others: rank 0 makes a file that they find.
void first_then_others(Communicator& world, const std::function<void()>& act);

}  // namespace satin::dist
