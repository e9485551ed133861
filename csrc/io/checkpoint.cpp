#include "io/checkpoint.h"

#include <charconv>

#include "core/error.h"
#include "core/file.h"
#include "io/manifest.h"
#include "io/model_files.h"
#include "io/safetensors.h"

namespace satin::io {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "step-";

/// N of "step-N", or nullopt for any other name.
std::optional<int64_t> step_of(const std::string& name) {
  int64_t step = 0;
  if (!name.starts_with(kPrefix)) return {};
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (parsed.ec != std::errc() || parsed.ptr != end || step < 0 || name != cat(kPrefix, step)) return {};
  return step;
}

/// Complete checkpoints, newest last.
std::map<int64_t, fs::path> complete_checkpoints(const fs::path& checkpoints) {
  std::map<int64_t, fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error))
    if (const auto step = step_of(entry.path().filename().string()); step && is_checkpoint(entry.path()))
      found[*step] = entry.path();
  return found;
}

/// What `latest` names, if that is a complete checkpoint.
std::optional<int64_t> named_latest(const fs::path& checkpoints) {
  if (!fs::is_regular_file(checkpoints / "latest")) return {};
  std::string name = read_file(checkpoints / "latest");
  while (!name.empty() && (name.back() == '\n' || name.back() == '\r')) name.pop_back();
  const auto step = step_of(name);
  return step && is_checkpoint(checkpoints / name) ? step : std::nullopt;
}

/// Removal may fail (a file held open on a network drive): it is tried again after the next save.
void remove_quietly(const fs::path& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

void remove_leftovers(const fs::path& checkpoints) {
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(cat('.', kPrefix)) &&
        (name.ends_with(".partial") || name.ends_with(".replaced") || name.ends_with(".pruned")))
      leftovers.push_back(entry.path());
  }
  for (const auto& path : leftovers) remove_quietly(path);
}

}  // namespace

fs::path save_checkpoint(const fs::path& run_directory, const CheckpointContents& contents, int64_t keep) {
  const fs::path checkpoints = run_directory / "checkpoints";
  const std::string name = cat(kPrefix, contents.manifest.step);
  AtomicDirectory directory(checkpoints / name);
  write_safetensors(directory.path() / "model.safetensors", contents.model);
  write_safetensors(directory.path() / "optimizer.safetensors", contents.optimizer);
  write_file_atomically(directory.path() / "config.yaml", contents.config_yaml);
  copy_model_files(contents.model_files, directory.path());
  write_manifest(directory.path(), contents.manifest);
  directory.commit();
  write_file_atomically(checkpoints / "latest", name + "\n");
  remove_leftovers(checkpoints);
  prune_checkpoints(run_directory, keep);
  return checkpoints / name;
}

std::optional<fs::path> latest_checkpoint(const fs::path& run_directory) {
  const fs::path checkpoints = run_directory / "checkpoints";
  if (const auto step = named_latest(checkpoints)) return checkpoints / cat(kPrefix, *step);
  const auto found = complete_checkpoints(checkpoints);
  if (found.empty()) return {};
  return found.rbegin()->second;
}

void prune_checkpoints(const fs::path& run_directory, int64_t keep) {
  SATIN_CHECK(keep >= 1, "a run keeps at least one checkpoint, not ", keep);
  const fs::path checkpoints = run_directory / "checkpoints";
  auto found = complete_checkpoints(checkpoints);
  if (const auto latest = named_latest(checkpoints)) {
    found.erase(*latest);
    --keep;
  }
  for (auto it = found.begin(); static_cast<int64_t>(found.size()) > keep;) {
    // Renamed first: a removal that is interrupted must not leave something that looks complete.
    const fs::path doomed = checkpoints / cat('.', it->second.filename().string(), ".pruned");
    std::error_code error;
    fs::rename(it->second, doomed, error);
    if (!error) remove_quietly(doomed);
    it = found.erase(it);
  }
}

}  // namespace satin::io
