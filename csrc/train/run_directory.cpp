#include "train/run_directory.h"

#include <unistd.h>

#include "core/error.h"

namespace satin::train {

Resume Resume::parse(const std::string& text) {
  if (text == "never") return {};
  if (text == "auto") return {true, {}};
  if (!fs::is_directory(text))
    throw UserError(cat("--resume: expected never, auto or a checkpoint directory, found '", text, "'"));
  return {true, fs::path(text)};
}

RunDirectory::RunDirectory(const fs::path& path, const Resume& resume) : path_(path) {
  std::error_code error;
  if (fs::exists(path_) && !fs::is_directory(path_))
    throw UserError(cat("train.output_dir: expected a directory, found a file: ", path_.string()));
  fs::create_directories(path_, error);
  if (error) throw UserError(cat("train.output_dir: cannot create ", path_.string(), ": ", error.message()));
  if (::access(path_.c_str(), W_OK) != 0)
    throw UserError(cat("train.output_dir: ", path_.string(), " is not writable"));
  const bool used = fs::exists(config()) || fs::exists(path_ / "checkpoints");
  if (used && !resume.enabled)
    throw UserError(
        cat("train.output_dir: ", path_.string(),
            " already holds a run; choose another directory, delete it, or continue it with --resume auto"));
}

}  // namespace satin::train
