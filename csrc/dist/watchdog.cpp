#include "dist/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "core/clock.h"
#include "core/error.h"
#include "dist/judge.h"
#include "dist/store.h"

namespace satin::dist {
namespace {

constexpr const char* kVerdict = "verdict";
constexpr const char* kNone = "-";  ///< no verdict yet: reading a key that is not there would wait

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

class Watchdog::Impl {
 public:
  Impl(const Launch& launch, std::shared_ptr<Communicator> group, double timeout_s)
      : launch_(launch),
        group_(std::move(group)),
        period_s_(std::min(timeout_s / 8, 1.0)),
        limit_s_(timeout_s - 4 * period_s_),
        judge_(launch.rank, launch.size) {
    try {
      store_ = c10::make_intrusive<c10d::PrefixStore>("watchdog", connect_store(launch, /*serve=*/false, timeout_s));
      store_->compareSet(kVerdict, std::string(), std::string(kNone));
      std::vector<std::string> keys;
      for (int64_t rank = 0; rank < launch.size; ++rank) keys.push_back(key(rank));
      write_beat();
      store_->wait(keys, std::chrono::milliseconds(std::llround(timeout_s * 1000)));
      read();
    } catch (const c10::Error& error) {
      throw PeerError(
          cat(launch.text(false), ": another rank was lost at the start: ", error.what_without_backtrace()));
    }
    exchanged_s_ = now_s();
    talker_ = std::thread([this] { talk(); });
    monitor_ = std::thread([this] { watch_store(); });
  }

  /// Says goodbye. False: the store does not answer, and what its threads use must stay.
  bool close() {
    if (state_ != Beat::State::kLeaving) state_ = Beat::State::kDone;
    std::unique_lock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return talker_ended_ || abandoned_; });
    const bool ended = talker_ended_;
    lock.unlock();
    if (ended) {
      talker_.join();
      monitor_.join();
    } else {
      talker_.detach();
      monitor_.detach();
    }
    return ended;
  }

  void set_step(int64_t step) { step_ = step; }
  void pause() { ++num_pauses_; }
  void resume() { --num_pauses_; }

  void fail(const std::string& reason) {
    std::unique_lock lock(mutex_);
    to_publish_ = cat(self(), ": ", first_line(reason));
    state_ = Beat::State::kLeaving;
    changed_.notify_all();
    changed_.wait_for(lock, std::chrono::duration<double>(limit_s_), [&] { return published_; });
  }

  [[noreturn]] void lost(const std::string& error) {
    peer_lost_ = true;
    // The silent rank is found after a few beats; if its process lives and talks on, this is the last word.
    pause_thread(5 * period_s_);
    fail(error);
    die(cat(self(), ": ", error));
  }

 private:
  static std::string key(int64_t rank) { return cat("beat/", rank); }
  std::string self() const { return cat("rank ", launch_.rank, " on ", launch_.host, " at step ", step_.load()); }
  bool serves() const { return launch_.rank == 0 && !launch_.store_is_served; }
  double silence_limit_s() const { return peer_lost_ ? 3 * period_s_ : limit_s_; }

  /// Only the talker and the monitor come here: whatever the main thread does, the process ends.
  [[noreturn]] void die(const std::string& verdict) {
    if (!dying_.exchange(true)) {
      const std::string line = cat("satin: rank ", launch_.rank, " on ", launch_.host, " at step ", step_.load(),
                                   " ends, the job has lost a rank: ", first_line(verdict), "\n");
      (void)!write(STDERR_FILENO, line.data(), line.size());
      _exit(1);
    }
    for (;;) pause_thread(1);  // another thread is ending the process
  }
  static void pause_thread(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

  void write_beat() {
    Beat beat;
    beat.count = ++count_;
    beat.step = step_;
    beat.state = state_;
    if (beat.state == Beat::State::kRunning && num_pauses_ > 0) beat.state = Beat::State::kPaused;
    beat.host = launch_.host;
    beat.groups = group_->progress();
    store_->set(key(launch_.rank), beat.to_text());
  }

  /// All beats and the verdict, in one message.
  void read() {
    std::vector<std::string> keys{kVerdict};
    for (int64_t rank = 0; rank < launch_.size; ++rank) keys.push_back(key(rank));
    const auto values = store_->multiGet(keys);
    verdict_.assign(values[0].begin(), values[0].end());
    beats_.clear();
    for (size_t i = 1; i < values.size(); ++i)
      beats_.push_back(Beat::from_text(std::string(values[i].begin(), values[i].end())));
  }

  bool others_are(bool leaving_too) const {
    for (int64_t rank = 0; rank < launch_.size; ++rank) {
      const auto state = beats_[static_cast<size_t>(rank)].state;
      if (rank != launch_.rank && state != Beat::State::kDone && !(leaving_too && state == Beat::State::kLeaving))
        return false;
    }
    return true;
  }

  /// Whoever is first has the last word. Returns the verdict that stands.
  std::string publish(const std::string& verdict) { return store_->compareSet(kVerdict, std::string(kNone), verdict); }

  /// The store must outlive what others still have to read in it.
  void linger() {
    if (!serves()) return;
    for (const double end = now_s() + 1.5 * period_s_; now_s() < end && !others_are(/*leaving_too=*/true);) {
      pause_thread(period_s_ / 4);
      read();
      exchanged_s_ = now_s();
    }
  }

  void talk() {
    try {
      while (exchange()) {
        std::unique_lock lock(mutex_);
        const auto news = [&] { return stopping_ || (!published_ && !to_publish_.empty()); };
        if (stopping_)  // only the server gets here: it stays for the others
          changed_.wait_for(lock, std::chrono::duration<double>(period_s_ / 4));
        else
          changed_.wait_for(lock, std::chrono::duration<double>(period_s_), news);
      }
    } catch (const std::exception& error) {
      if (!stopping_) store_lost(cat("closed the connection (", first_line(error.what()), ")"));
    }
    const std::lock_guard lock(mutex_);
    talker_ended_ = true;
    changed_.notify_all();
  }

  bool exchange() {
    const bool stopping = stopping_;  // before the beat, which then is the goodbye
    write_beat();
    read();
    exchanged_s_ = now_s();
    return one_look(stopping);
  }

  /// After an exchange with the store. False: nothing is left to do.
  bool one_look(bool stopping) {
    std::string reason;
    {
      const std::lock_guard lock(mutex_);
      if (!published_) reason = to_publish_;
    }
    if (!reason.empty()) {
      publish(reason);
      linger();
      const std::lock_guard lock(mutex_);
      published_ = true;
      changed_.notify_all();
      return true;
    }
    if (stopping && (!serves() || state_ != Beat::State::kDone || others_are(/*leaving_too=*/true))) return false;
    if (state_ == Beat::State::kLeaving) return true;  // this rank ends by itself
    std::string verdict = verdict_;
    if (verdict == kNone) {
      const auto found = judge_.look(beats_, now_s(), silence_limit_s(), limit_s_);
      if (!found) return true;
      verdict = publish(*found);
    }
    leave(verdict);
    return true;
  }

  void leave(const std::string& verdict) {
    // A rank that fails for the same cause (all see the same NaN) may end with its own message and status.
    for (const double end = now_s() + std::min(period_s_ / 2, 0.2); now_s() < end; pause_thread(0.01)) {
      const std::lock_guard lock(mutex_);
      if (!to_publish_.empty()) {
        published_ = true;
        changed_.notify_all();
        return;
      }
    }
    state_ = Beat::State::kLeaving;
    try {
      write_beat();
      linger();
    } catch (const std::exception&) {  // the store went first; what counts is known
    }
    die(verdict);
  }

  void watch_store() {
    std::unique_lock lock(mutex_);
    while (!talker_ended_) {
      changed_.wait_for(lock, std::chrono::duration<double>(period_s_ / 2), [&] { return talker_ended_; });
      const double silent_s = now_s() - exchanged_s_;
      if (talker_ended_ || silent_s < limit_s_) continue;
      abandoned_ = state_ == Beat::State::kLeaving;
      lock.unlock();
      return store_lost(cat("does not answer for ", fixed(silent_s, 1), " s"));
    }
  }

  void store_lost(const std::string& how) {
    {
      const std::lock_guard lock(mutex_);
      published_ = true;
    }
    changed_.notify_all();
    if (state_ == Beat::State::kLeaving) {  // the main thread has an error of its own to end with
      for (const double end = now_s() + std::min(limit_s_, 5.0); now_s() < end; pause_thread(0.01))
        if (stopping_ && !abandoned_) return;
    }
    if (launch_.store_is_served) die(cat("the store of the launcher at ", launch_.master_address, " ", how));
    if (const auto silent = judge_.silent_before(2.5 * period_s_, /*server=*/0)) die(*silent);
    if (launch_.rank == 0) die(cat(judge_.name(0), ": its own store ", how));
    die(cat(judge_.name(0), ": the store that it serves ", how, " (killed, stopped, or the network to it is cut)"));
  }

  const Launch launch_;
  const std::shared_ptr<Communicator> group_;
  const double period_s_;
  const double limit_s_;  ///< after which a rank is lost; the other four periods are for finding and telling it
  c10::intrusive_ptr<c10d::Store> store_;
  std::thread talker_, monitor_;

  std::atomic<int64_t> step_{0}, num_pauses_{0};
  std::atomic<Beat::State> state_{Beat::State::kRunning};
  std::atomic<bool> peer_lost_{false}, dying_{false}, stopping_{false};
  std::atomic<bool> abandoned_{false};  ///< the store is gone, the main thread ends on its own
  std::atomic<double> exchanged_s_{0};  ///< when the store last answered

  // Of the talker's thread.
  int64_t count_ = 0;
  std::vector<Beat> beats_;
  std::string verdict_;
  Judge judge_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string to_publish_;
  bool published_ = false, talker_ended_ = false;
};

Watchdog::Watchdog(const Launch& launch, std::shared_ptr<Communicator> group, double timeout_s) {
  if (launch.size > 1) impl_ = std::make_unique<Impl>(launch, std::move(group), timeout_s);
}
Watchdog::~Watchdog() {
  if (impl_ && !impl_->close()) (void)impl_.release();
}

void Watchdog::step(int64_t step) {
  if (impl_) impl_->set_step(step);
}
void Watchdog::pause() {
  if (impl_) impl_->pause();
}
void Watchdog::resume() {
  if (impl_) impl_->resume();
}
void Watchdog::fail(const std::string& reason) {
  if (impl_) impl_->fail(reason);
}
void Watchdog::lost(const std::string& error) {
  if (impl_) impl_->lost(error);
  throw PeerError(error);
}

void Watchdog::guard(const std::function<void()>& work) {
  try {
    work();
  } catch (const PeerError& error) {
    lost(error.what());
  } catch (const InterruptedError&) {
    throw;
  } catch (const std::exception& error) {
    fail(error.what());
    throw;
  }
}

}  // namespace satin::dist
