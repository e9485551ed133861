#include "dist/together.h"

#include "core/error.h"

namespace satin::dist {
namespace {

constexpr char kDone = '+', kUser = 'u', kStopped = 's', kInternal = 'i';

/// What `work` returned or threw, as text that travels.
std::string outcome(const std::function<std::string()>& work) {
  try {
    return kDone + work();
  } catch (const PeerError&) {
    throw;
  } catch (const UserError& error) {
    return kUser + std::string(error.what());
  } catch (const InterruptedError& error) {
    return kStopped + std::string(error.what());
  } catch (const std::exception& error) {
    return kInternal + std::string(error.what());
  }
}

}  // namespace

std::vector<std::string> gather_of(Communicator& ranks, const std::function<std::string()>& work) {
  if (ranks.size() == 1) return {work()};
  std::vector<std::string> results = ranks.gather(outcome(work));
  for (size_t rank = 0; rank < results.size(); ++rank) {
    const char kind = results[rank].at(0);
    results[rank].erase(0, 1);
    if (kind == kDone) continue;
    if (kind == kStopped) throw InterruptedError(results[rank]);
    const std::string message = cat("rank ", rank, ": ", results[rank]);
    if (kind == kUser) throw UserError(message);
    throw InternalError(message);
  }
  return results;
}

void together(Communicator& ranks, const std::function<void()>& work) {
  gather_of(ranks, [&] {
    work();
    return std::string();
  });
}

void in_rounds(Communicator& ranks, const std::function<bool()>& round) {
  for (bool more = true; more;) {
    more = false;
    for (const auto& left : gather_of(ranks, [&] { return std::string(round() ? "more" : ""); }))
      more = more || !left.empty();
  }
}

}  // namespace satin::dist
