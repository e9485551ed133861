// report.html: what a run did, or how several compare, in one file.
#pragma once
#include <filesystem>
#include <vector>

namespace satin::report {

/// Writes one self-contained page (no network; styles, script and data inside) about `run_dirs`: tables of results,
/// smoothness and robustness beside the teacher, curves of every metric with a line a run, the quantizers, and the
/// configurations with their differences. Written whole or not at all. Errors: UserError as of read_run, and when
/// `output` cannot be written.
void write_report(const std::vector<std::filesystem::path>& run_dirs, const std::filesystem::path& output);

}  // namespace satin::report
