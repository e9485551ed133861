#include "io/shared_directory.h"

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <memory>
#include <random>
#include <thread>

#include "core/error.h"
#include "core/file.h"
#include "core/portion.h"
#include "dist/together.h"

namespace satin::io {
namespace fs = std::filesystem;
namespace {

/// A file of rank 0's that goes with this object.
struct Marker {
  fs::path path;
  ~Marker() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
};

std::string random_name() {
  std::random_device random;
  std::ostringstream name;
  name << ".shared-" << std::hex << random() << random();
  return name.str();
}

/// Whether the file is there, now or in a moment: a network file system may know it late.
bool appears(const fs::path& file) {
  using namespace std::chrono_literals;
  std::error_code error;
  for (const auto deadline = std::chrono::steady_clock::now() + 5s; std::chrono::steady_clock::now() < deadline;
       std::this_thread::sleep_for(50ms)) {
    // Opening a directory renews what such a file system remembers of it.
    for (const auto& directory : {file.parent_path().parent_path(), file.parent_path()})
      fs::directory_iterator(directory.empty() ? "." : directory, error);
    if (fs::exists(file, error)) return true;
  }
  return false;
}

constexpr size_t kReadBytes = size_t{16} << 20;        // of a file in memory
constexpr size_t kReadRoundBytes = size_t{256} << 20;  // read before ranks meet again

/// A rank's part of a file.
struct Share {
  std::unique_ptr<MappedFile> file;
  size_t begin, end;
  uint32_t crc = 0;

  /// Goes on with at most `limit` bytes; returns how many it were.
  size_t read(size_t limit) {
    const size_t first = begin, last = begin + std::min(limit, end - begin);
    while (begin < last) {
      const size_t size = std::min(kReadBytes, last - begin);
      crc = crc32c(file->bytes().subspan(begin, size), crc);
      file->release(begin, size);
      begin += size;
    }
    return last - first;
  }
};

}  // namespace

void check_shared(const fs::path& directory, dist::Communicator& ranks, const std::string& key) {
  if (ranks.size() == 1) return;
  Marker marker;
  const std::string name = dist::gather_of(ranks, [&] {
    if (ranks.rank() != 0) return std::string();
    marker.path = directory / random_name();
    write_file_atomically(marker.path, "");
    return marker.path.filename().string();
  })[0];
  dist::together(ranks, [&] {
    if (!appears(directory / name))
      throw UserError(cat("expected a directory that all ranks share, found that what rank 0 writes into ",
                          directory.string(), " is not seen here: set ", key,
                          " to a place on a file system that every host mounts"));
  });
}

std::vector<CheckpointFile> checksums(const std::vector<fs::path>& files, dist::Communicator& ranks) {
  const auto rank = static_cast<size_t>(ranks.rank()), size = static_cast<size_t>(ranks.size());
  const auto share_begin = [&](size_t file_size, size_t of_rank) { return portion_begin(file_size, size, of_rank); };
  std::vector<Share> shares;
  dist::together(ranks, [&] {
    for (const auto& path : files) {
      auto file = std::make_unique<MappedFile>(path);
      const size_t bytes = file->size();
      shares.push_back({std::move(file), share_begin(bytes, rank), share_begin(bytes, rank + 1)});
    }
  });
  size_t current = 0;
  dist::in_rounds(ranks, [&] {
    for (size_t left = kReadRoundBytes; current < shares.size() && left > 0;) {
      left -= shares[current].read(left);
      if (shares[current].begin == shares[current].end) ++current;
    }
    return current < shares.size();
  });
  const auto texts = dist::gather_of(ranks, [&] {
    std::string text;
    for (const Share& share : shares) text += cat(share.file->size(), ' ', share.crc, ' ');
    return text;
  });
  std::vector<CheckpointFile> results(files.size());
  for (size_t of_rank = 0; of_rank < size; ++of_rank) {
    std::istringstream text(texts[of_rank]);
    for (size_t i = 0; i < files.size(); ++i) {
      uint64_t bytes = 0;
      uint32_t crc = 0;
      text >> bytes >> crc;
      if (bytes != shares[i].file->size())
        throw UserError(cat(files[i].string(), ": expected the same file on every rank, found ", shares[i].file->size(),
                            " bytes on rank ", rank, " and ", bytes, " on rank ", of_rank));
      results[i] = {
          bytes, crc32c_combine(results[i].crc32c, crc, share_begin(bytes, of_rank + 1) - share_begin(bytes, of_rank))};
    }
  }
  return results;
}

}  // namespace satin::io
