#include "dist/judge.h"

#include <sstream>

#include "core/error.h"

namespace satin::dist {
namespace {

bool same(const Beat& a, const Beat& b) {
  if (a.step != b.step || a.state != b.state || a.groups.size() != b.groups.size()) return false;
  for (size_t i = 0; i < a.groups.size(); ++i)
    if (a.groups[i].entered != b.groups[i].entered || a.groups[i].outstanding != b.groups[i].outstanding) return false;
  return true;
}

int64_t entered(const Beat& beat, size_t group) { return group < beat.groups.size() ? beat.groups[group].entered : 0; }

bool takes_part(const Beat& beat) { return beat.state == Beat::State::kRunning || beat.state == Beat::State::kPaused; }

}  // namespace

std::string Beat::to_text() const {
  std::ostringstream out;
  out << count << ' ' << step << ' ' << static_cast<int>(state) << ' ' << (host.empty() ? "?" : host);
  for (const auto& group : groups) out << ' ' << group.entered << ' ' << group.outstanding;
  return out.str();
}

Beat Beat::from_text(const std::string& text) {
  std::istringstream in(text);
  Beat beat;
  int state = 0;
  in >> beat.count >> beat.step >> state >> beat.host;
  SATIN_CHECK(in && state >= 0 && state <= static_cast<int>(State::kDone), "beat: '", text, "'");
  beat.state = static_cast<State>(state);
  for (GroupProgress group; in >> group.entered >> group.outstanding;) beat.groups.push_back(group);
  return beat;
}

std::string Judge::name(int64_t rank) const {
  const Seen& seen = seen_[static_cast<size_t>(rank)];
  return cat("rank ", rank, " on ", seen.any ? seen.beat.host : "?", " at step ", seen.beat.step);
}

std::optional<std::string> Judge::look(const std::vector<Beat>& beats, double now_s, double silence_limit_s,
                                       double lag_limit_s) {
  std::vector<int64_t> furthest;
  for (const Beat& beat : beats) {
    furthest.resize(std::max(furthest.size(), beat.groups.size()));
    for (size_t k = 0; k < beat.groups.size(); ++k) furthest[k] = std::max(furthest[k], beat.groups[k].entered);
  }
  for (size_t rank = 0; rank < seen_.size(); ++rank) {
    Seen& seen = seen_[rank];
    const Beat& beat = beats[rank];
    bool behind = false;
    for (size_t k = 0; k < furthest.size(); ++k) behind |= entered(beat, k) < furthest[k];
    const bool moved = !seen.any || !same(seen.beat, beat);
    if (!seen.any || seen.beat.count != beat.count) seen.heard_s = now_s;
    if (moved || !behind || beat.state != Beat::State::kRunning) seen.moved_s = now_s;
    if (moved || beat.state == Beat::State::kPaused) all_moved_s_ = now_s;
    seen.beat = beat;
    seen.any = true;
  }
  last_look_s_ = now_s;
  for (size_t rank = 0; rank < seen_.size(); ++rank) {
    const Seen& seen = seen_[rank];
    if (static_cast<int64_t>(rank) != rank_ && takes_part(seen.beat) && now_s - seen.heard_s >= silence_limit_s)
      return cat(name(static_cast<int64_t>(rank)), ": no sign of life for ", fixed(now_s - seen.heard_s, 1),
                 " s (killed, stopped, or its host or network is down)");
  }
  if (auto lags = laggard(now_s, lag_limit_s)) return lags;
  return stuck(now_s, lag_limit_s);
}

std::optional<std::string> Judge::laggard(double now_s, double limit_s) const {
  // Who stands longest is the cause; the others wait for it.
  std::optional<size_t> worst;
  for (size_t rank = 0; rank < seen_.size(); ++rank)
    if (now_s - seen_[rank].moved_s >= limit_s && (!worst || seen_[rank].moved_s < seen_[*worst].moved_s)) worst = rank;
  if (!worst) return std::nullopt;
  for (size_t rank = 0; rank < seen_.size(); ++rank)
    for (size_t k = 0; k < seen_[rank].beat.groups.size(); ++k)
      if (entered(seen_[rank].beat, k) > entered(seen_[*worst].beat, k))
        return cat(name(static_cast<int64_t>(*worst)), ": hangs: for ", fixed(now_s - seen_[*worst].moved_s, 1),
                   " s it has not entered a collective that rank ", rank, " is in");
  return std::nullopt;
}

std::optional<std::string> Judge::stuck(double now_s, double limit_s) const {
  if (now_s - all_moved_s_ < limit_s) return std::nullopt;
  for (size_t rank = 0; rank < seen_.size(); ++rank)
    for (const auto& group : seen_[rank].beat.groups)
      if (group.outstanding && takes_part(seen_[rank].beat))
        return cat(name(static_cast<int64_t>(rank)), ": a collective that every rank has entered does not end for ",
                   fixed(now_s - all_moved_s_, 1), " s: the network between the ranks is cut, or a GPU hangs");
  return std::nullopt;
}

std::optional<std::string> Judge::silent_before(double silence_limit_s, int64_t server) const {
  std::optional<size_t> longest;
  for (size_t rank = 0; rank < seen_.size(); ++rank) {
    const Seen& seen = seen_[rank];
    if (static_cast<int64_t>(rank) == rank_ || static_cast<int64_t>(rank) == server || !takes_part(seen.beat)) continue;
    if (last_look_s_ - seen.heard_s >= silence_limit_s && (!longest || seen.heard_s < seen_[*longest].heard_s))
      longest = rank;
  }
  if (!longest) return std::nullopt;
  return cat(name(static_cast<int64_t>(*longest)), ": no sign of life for ",
             fixed(last_look_s_ - seen_[*longest].heard_s, 1), " s");
}

}  // namespace satin::dist
