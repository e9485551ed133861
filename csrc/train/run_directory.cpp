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

void RunDirectory::check(const fs::path& path, const Resume& resume) {
  fs::path existing = fs::absolute(path);
  while (!fs::exists(existing) && existing.has_relative_path()) existing = existing.parent_path();
  if (!fs::is_directory(existing))
    throw UserError(cat("train.output_dir: expected a directory, found a file: ", existing.string()));
  if (::access(existing.c_str(), W_OK) != 0)
    throw UserError(cat("train.output_dir: ", existing.string(), " is not writable"));
  if (resume.enabled || !fs::exists(path)) return;
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    if (name == "log.txt" || name == "cache") continue;  // what a start that failed leaves
    const bool run = fs::exists(path / "checkpoints") || fs::exists(path / "config.yaml");
    throw UserError(cat("train.output_dir: ", path.string(),
                        run ? " already holds a run" : cat(" is not empty (it holds ", name, ")"),
                        "; choose another directory, delete it, or continue it with --resume auto"));
  }
}

RunDirectory::RunDirectory(const fs::path& path, const Resume& resume) : path_(path) {
  check(path_, resume);
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) throw UserError(cat("train.output_dir: cannot create ", path_.string(), ": ", error.message()));
}

}  // namespace satin::train
