// Work that succeeds on every rank or fails on every rank.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "dist/communicator.h"

namespace satin::dist {

/// Runs `work` on every rank and returns when it is done on all, with what each returned. Where it throws on a rank,
/// all ranks throw "rank 2: <its message>": UserError where that was one, else InternalError; what a signal stopped on
/// one is InterruptedError on all. A group of one throws the error itself. PeerError is thrown at once: with a rank
/// lost nothing can be agreed.
std::vector<std::string> gather_of(Communicator& ranks, const std::function<std::string()>& work);

/// The same of work that returns nothing.
void together(Communicator& ranks, const std::function<void()>& work);

/// Calls `round` together until it has nothing left on any rank (returns false; it may be called again then). Long work
/// is done in rounds so that no rank waits long for another, and so that all stop when one fails.
void in_rounds(Communicator& ranks, const std::function<bool()>& round);

}  // namespace satin::dist
