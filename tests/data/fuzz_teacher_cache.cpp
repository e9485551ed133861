// libFuzzer's entry point for teacher caches: manifest.json, a zero byte, then the first shard (`scripts/fuzz
// teacher_cache`). Its corpus is replayed by fuzz_replay_test.cpp.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>

#include "core/error.h"
#include "data/teacher_cache.h"

namespace satin::data {
namespace {
namespace fs = std::filesystem;

void require(bool condition) {
  if (!condition) std::abort();
}

/// A folder for this process's inputs, in memory where there is such a place.
class Scratch {
 public:
  Scratch() {
    std::string name =
        fs::is_directory("/dev/shm") ? "/dev/shm/fuzz-XXXXXX" : fs::temp_directory_path() / "fuzz-XXXXXX";
    require(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Scratch() { fs::remove_all(path); }
  fs::path path;
};

void write(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void check(const fs::path& directory, std::string_view manifest, std::string_view shard) {
  write(teacher_cache_manifest_path(directory), manifest);
  write(teacher_cache_shard_path(directory, 0), shard);
  try {
    const TeacherCache cache(directory);
    const TeacherCacheDescription& d = cache.description();
    require(cache.bytes() == manifest.size() + shard.size() && differences(d, d).empty());
    TeacherRows rows;
    const uint64_t texts = std::max<uint64_t>(1, d.copies);
    for (uint64_t window = 0; window < d.num_windows; ++window)
      for (uint64_t copy = 0; copy < texts; ++copy) cache.read(window, rows, copy);
    require(rows.log_total.size() == d.num_windows * texts * static_cast<uint64_t>(d.sequence_length));
    require(rows.tokens.size() == (d.copies > 0 ? rows.log_total.size() : 0));
    for (const int32_t id : rows.tokens) require(id >= 0 && id < d.vocab_size);
    require(rows.log_rest.size() == rows.log_total.size() && rows.logits.size() == rows.ids.size());
    require(rows.ids.size() == rows.log_total.size() * static_cast<uint64_t>(d.top_k));
    for (const int32_t id : rows.ids) require(id >= 0 && id < d.vocab_size);
  } catch (const UserError&) {
  }
}

/// What a fuzzer cannot guess, so that what lies behind it is reached: the manifest's layout and the checksums.
void repair(const fs::path& directory, std::string& shard) {
  TeacherCacheShardHeader header;
  try {
    const auto manifest = TeacherCacheManifest::read(directory);
    header.version = manifest->version();
    header.manifest_crc = manifest->crc;
    header.num_windows = manifest->windows_in_shard(0);
    header.window_bytes = manifest->window_bytes();
  } catch (const UserError&) {
    return;
  }
  header.payload_crc = crc32c(std::as_bytes(std::span(shard)).subspan(sizeof header));
  header.header_crc = header.expected_crc();
  std::memcpy(shard.data(), &header, sizeof header);
}

}  // namespace
}  // namespace satin::data

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const satin::data::Scratch scratch;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view manifest = input.substr(0, input.find('\0'));
  std::string shard(input.substr(std::min(size, manifest.size() + 1)));
  satin::data::check(scratch.path, manifest, shard);
  if (shard.size() >= sizeof(satin::data::TeacherCacheShardHeader)) {
    satin::data::repair(scratch.path, shard);
    satin::data::check(scratch.path, manifest, shard);
  }
  return 0;
}
