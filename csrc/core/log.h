// Log lines to stderr and, once opened, to a file. A thin front: spdlog stays out of files that see torch.
#pragma once
#include <string>

namespace satin {

void log_info(const std::string& message);
void log_warning(const std::string& message);

/// Copies every later line to `path` (appended). Throws UserError when it cannot be opened.
void log_to_file(const std::string& path);
/// Stops copying to the file.
void close_log_file();
/// Hides log_info lines on stderr (warnings stay; the file gets everything).
void set_quiet(bool quiet);

/// One of several processes that is not to be heard: info lines, the progress line and stdout are dropped, and what
/// remains begins with `name`, as "[rank 2]".
void set_background(const std::string& name);
/// That name and a space, or nothing: for what goes to stderr by other ways.
const std::string& background_name();

/// One line that is rewritten in place on a terminal (stderr); elsewhere every `plain_every_s` seconds a plain line.
void progress(const std::string& line, double plain_every_s = 10);
/// Ends the rewritten line, if there is one.
void end_progress();

}  // namespace satin
