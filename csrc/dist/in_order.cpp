#include "dist/in_order.h"

#include "core/error.h"

namespace satin::dist {

void on_first(Communicator& world, const std::function<void()>& act) {
  if (world.size() == 1) return act();
  constexpr char kDone[] = "";
  if (world.rank() == 0) {
    try {
      act();
    } catch (const std::exception& error) {
      world.gather(cat("!", error.what()));
      throw;
    }
    world.gather(kDone);
    return;
  }
  const std::string outcome = world.gather(kDone)[0];
  if (outcome != kDone) throw UserError(cat("rank 0: ", outcome.substr(1)));
}

void first_then_others(Communicator& world, const std::function<void()>& act) {
  on_first(world, act);
  if (world.rank() != 0) act();
}

}  // namespace satin::dist
