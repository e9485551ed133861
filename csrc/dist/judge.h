// Which rank is lost, told from what all ranks last said of themselves. No clock and no network of its own.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "dist/communicator.h"

namespace satin::dist {

/// What a rank says of itself, again and again.
struct Beat {
  enum class State {
    kRunning,
    kPaused,   ///< works alone for a while: others may wait for it
    kLeaving,  ///< knows that the job ends, and why
    kDone,
  };
  int64_t count = 0;  ///< of beats: it moves while the process lives
  int64_t step = 0;
  State state = State::kRunning;
  std::string host;
  std::vector<GroupProgress> groups;

  std::string to_text() const;
  static Beat from_text(const std::string& text);
};

class Judge {
 public:
  explicit Judge(int64_t rank, int64_t size) : rank_(rank), seen_(static_cast<size_t>(size)) {}

  /// "rank 2 on HOST at step 17: why", once a rank has been silent for silence_limit_s, or has not entered a collective
  /// that others are in for lag_limit_s, or one does not end that all are in. Beats in the ranks' order; now_s: any
  /// steady clock.
  std::optional<std::string> look(const std::vector<Beat>& beats, double now_s, double silence_limit_s,
                                  double lag_limit_s);
  /// After the store went: the rank other than `server` that had been silent the longest by then, if any was for
  /// silence_limit_s.
  std::optional<std::string> silent_before(double silence_limit_s, int64_t server) const;
  /// "rank 0 on HOST at step 17".
  std::string name(int64_t rank) const;

 private:
  struct Seen {
    Beat beat;
    bool any = false;
    double heard_s = 0;  ///< when its count last moved
    double moved_s = 0;  ///< when its step or collectives last moved, or it was paused, or nobody was ahead of it
  };
  std::optional<std::string> laggard(double now_s, double limit_s) const;
  std::optional<std::string> stuck(double now_s, double limit_s) const;

  int64_t rank_;
  std::vector<Seen> seen_;
  double last_look_s_ = 0;
  double all_moved_s_ = 0;  ///< when anything last moved anywhere
};

}  // namespace satin::dist
