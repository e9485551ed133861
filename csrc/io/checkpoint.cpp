#include "io/checkpoint.h"

#include <charconv>

#include "core/error.h"
#include "core/file.h"
#include "dist/together.h"
#include "io/checkpoint_part.h"
#include "io/manifest.h"
#include "io/model_files.h"
#include "io/output_file.h"
#include "io/shared_directory.h"

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

constexpr int64_t kPieceBytes = int64_t{16} << 20;  // of another device's tensor on the host
constexpr int64_t kRoundBytes = int64_t{64} << 20;  // written and synced before ranks meet again

void start_file(const fs::path& path, const TensorFilePart& part) {
  OutputFile file(path, OutputFile::Mode::kCreate, path);
  file.reserve(part.layout.size_bytes());
  file.write_at(0, std::as_bytes(std::span(part.layout.header())));
  file.sync();
  file.close();
}

/// At most kPieceBytes of a run.
struct Piece {
  size_t file;
  at::Tensor elements;
  int64_t begin;
};

std::vector<Piece> pieces_of(const std::vector<TensorFilePart>& files) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < files.size(); ++i)
    for (const auto& [elements, begin] : files[i].runs) {
      const auto element_bytes = static_cast<int64_t>(elements.element_size());
      for (int64_t at = 0; at < elements.numel(); at += kPieceBytes / element_bytes)
        pieces.push_back({i, elements.narrow(0, at, std::min(kPieceBytes / element_bytes, elements.numel() - at)),
                          begin + at * element_bytes});
    }
  return pieces;
}

/// Every rank's runs into the files of the directory, on the disk when it returns.
void write_runs(const fs::path& directory, const std::vector<TensorFilePart>& parts, dist::Communicator& ranks) {
  std::vector<OutputFile> files;
  dist::together(ranks, [&] {
    files.reserve(parts.size());
    for (const auto& part : parts)
      files.emplace_back(directory / part.name, OutputFile::Mode::kExisting, directory / part.name);
  });
  const std::vector<Piece> pieces = pieces_of(parts);
  size_t next = 0;
  dist::in_rounds(ranks, [&] {
    for (int64_t written = 0; next < pieces.size() && written < kRoundBytes; ++next) {
      const at::Tensor host = pieces[next].elements.cpu();
      files[pieces[next].file].write_at(pieces[next].begin,
                                        {static_cast<const std::byte*>(host.const_data_ptr()), host.nbytes()});
      written += static_cast<int64_t>(host.nbytes());
    }
    for (auto& file : files) file.sync();
    return next < pieces.size();
  });
  dist::together(ranks, [&] {
    for (auto& file : files) file.close();
  });
}

}  // namespace

fs::path save_checkpoint(const fs::path& run_directory, const CheckpointContents& contents, int64_t keep,
                         dist::Communicator& ranks) {
  return write_checkpoint(run_directory, part_of(contents, ranks), keep, ranks);
}

fs::path write_checkpoint(const fs::path& run_directory, CheckpointPart part, int64_t keep, dist::Communicator& ranks) {
  const fs::path checkpoints = run_directory / "checkpoints";
  const std::string name = cat(kPrefix, part.manifest.step);
  std::optional<AtomicDirectory> directory;  // rank 0's; with it goes what was written, unless it is committed
  const std::string hidden = dist::gather_of(ranks, [&] {
    if (ranks.rank() != 0) return std::string();
    directory.emplace(checkpoints / name);
    for (const auto& file : part.files) start_file(directory->path() / file.name, file);
    return directory->path().filename().string();
  })[0];
  check_shared(checkpoints / hidden, ranks);
  write_runs(checkpoints / hidden, part.files, ranks);
  std::vector<fs::path> paths;
  for (const auto& file : part.files) paths.push_back(checkpoints / hidden / file.name);
  const auto sums = checksums(paths, ranks);
  for (size_t i = 0; i < sums.size(); ++i) part.manifest.files[part.files[i].name] = sums[i];
  dist::together(ranks, [&] {
    if (!directory) return;
    write_file_atomically(directory->path() / "config.yaml", part.config_yaml);
    copy_model_files(part.model_files, directory->path());
    write_manifest(directory->path(), part.manifest);
    directory->commit();
    write_file_atomically(checkpoints / "latest", name + "\n");
    remove_leftovers(checkpoints);
    prune_checkpoints(run_directory, keep);
  });
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
