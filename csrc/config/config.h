// Reading, checking and writing a configuration. The YAML keys are the field names of schema.h.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "config/schema.h"

namespace satin::config {

/// What the configuration is for: it decides which keys must be there.
enum class Job {
  any,       ///< keys, types, ranges and rules only: a stored config.yaml whose files may be gone
  train,     ///< also: data, a length, losses that fit the teacher, and files that exist
  quantize,  ///< also: a quantization section and files that exist
  allocate,  ///< also: learnable integer grids, text and candidates that fit the budget
};

/// Reads `yaml`, applies `overrides` ("dotted.key=value", the value is YAML, list items by index:
/// data.train.0.path=x.jsonl, one past the end appends; quantization=none removes the section), makes paths absolute
/// (relative ones start at the file's folder, in overrides at the current directory; "~/" is the home folder) and
/// checks everything. Errors: one UserError that lists all problems, each with file:line or "override N (text)".
Config load(const std::filesystem::path& yaml, const std::vector<std::string>& overrides = {}, Job job = Job::train);

/// As load, from text. `name` stands in messages; `directory` is where relative paths start.
Config parse(std::string_view text, const std::string& name, const std::filesystem::path& directory,
             const std::vector<std::string>& overrides = {}, Job job = Job::train);

/// The checks across keys of Job::train, for a Config that was built in code. Throws one UserError with all problems.
void validate_for_training(const Config& config);

/// The whole configuration as YAML with every key, which loads back to an equal Config (numbers to the last bit).
/// An absent quantization stays absent.
std::string dump(const Config& config);

/// Every key by section: default, unit or allowed values, one line of help.
std::string help();

}  // namespace satin::config
