#include "core/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "core/error.h"

namespace satin {
namespace {

struct State {
  std::shared_ptr<spdlog::logger> console =
      std::make_shared<spdlog::logger>("satin", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  std::shared_ptr<spdlog::logger> file;
  bool quiet = false;
  std::string background;
  bool line_open = false;
  std::chrono::steady_clock::time_point last_plain{};
  State() { console->set_pattern("%v"); }
};

State& state() {
  static State instance;
  return instance;
}

void write(spdlog::level::level_enum level, const std::string& message) {
  end_progress();
  if (!(state().quiet && level == spdlog::level::info)) {
    state().console->log(level, "{}{}{}", state().background, level == spdlog::level::warn ? "warning: " : "", message);
    state().console->flush();
  }
  if (state().file) {
    state().file->log(level, "{}", message);
    state().file->flush();
  }
}

}  // namespace

void log_info(const std::string& message) { write(spdlog::level::info, message); }
void log_warning(const std::string& message) { write(spdlog::level::warn, message); }

void log_to_file(const std::string& path) {
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
    state().file = std::make_shared<spdlog::logger>("file", sink);
    state().file->set_pattern("%Y-%m-%d %H:%M:%S %l %v");
  } catch (const spdlog::spdlog_ex& error) {
    throw UserError(cat("cannot write the log file ", path, ": ", error.what()));
  }
}

void close_log_file() { state().file.reset(); }
void set_quiet(bool quiet) { state().quiet = quiet; }

void set_background(const std::string& name) {
  state().background = name + " ";
  state().quiet = true;
  if (!std::freopen("/dev/null", "w", stdout)) log_warning("stdout stays open");
}

const std::string& background_name() { return state().background; }

void progress(const std::string& line, double plain_every_s) {
  if (state().quiet) return;
  if (isatty(STDERR_FILENO)) {
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    std::fflush(stderr);
    state().line_open = true;
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (state().last_plain.time_since_epoch().count() != 0 &&
      std::chrono::duration<double>(now - state().last_plain).count() < plain_every_s)
    return;
  state().last_plain = now;
  std::fprintf(stderr, "%s\n", line.c_str());
  std::fflush(stderr);
}

void end_progress() {
  if (!state().line_open) return;
  state().line_open = false;
  std::fputc('\n', stderr);
}

}  // namespace satin
