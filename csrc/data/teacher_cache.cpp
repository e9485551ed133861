#include "data/teacher_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"

namespace satin::data {
namespace {
namespace fs = std::filesystem;

constexpr uint64_t kHeaderBytes = sizeof(TeacherCacheShardHeader);

[[noreturn]] void fail_shard(const fs::path& path, const std::string& what) {
  throw UserError(cat(path.string(), ": not a usable shard of its teacher cache: ", what,
                      "; remove this file and run `satin cache-teacher` again, which writes it anew"));
}

float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, size = half & 0x7fffu;
  if (size >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000u | (size & 0x3ffu) << 13);  // infinity, NaN
  if (size < 0x400) return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(size) * 0x1p-24f));
  return std::bit_cast<float>(sign | (size + ((127 - 15) << 10)) << 13);
}

/// Appends n values of type T, `convert`ed; the map's alignment is the file's, so none is relied on.
template <class T, class Out, class Convert>
void append(const std::byte* from, uint64_t n, std::vector<Out>& out, Convert convert) {
  const size_t begin = out.size();
  out.resize(begin + n);
  for (uint64_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, from + i * sizeof value, sizeof value);
    out[begin + i] = convert(value);
  }
}

MappedFile open_shard(const fs::path& path, const TeacherCacheManifest& manifest, uint64_t shard) {
  MappedFile map(path);
  TeacherCacheShardHeader h;
  if (map.size() < kHeaderBytes)
    fail_shard(path, cat("file size: expected at least ", kHeaderBytes, " bytes, found ", map.size()));
  std::memcpy(&h, map.bytes().data(), sizeof h);
  const auto expect = [&](const char* field, uint64_t expected, uint64_t found, const char* hint = "") {
    if (found != expected) fail_shard(path, cat(field, ": expected ", expected, ", found ", found, hint));
  };
  if (h.magic != TeacherCacheShardHeader::kMagic) fail_shard(path, "magic: the file does not begin with SATINTCH");
  expect("version", manifest.version(), h.version);
  expect("header checksum", h.expected_crc(), h.header_crc, " (the file is damaged)");
  expect("manifest checksum", manifest.crc, h.manifest_crc, " (a shard of another cache, or manifest.json was edited)");
  expect("index", shard, h.index);
  expect("first window", shard * manifest.windows_per_shard, h.first_window);
  expect("number of windows", manifest.windows_in_shard(shard), h.num_windows);
  expect("bytes a window", manifest.window_bytes(), h.window_bytes);
  if (h.reserved != decltype(h.reserved){}) fail_shard(path, "reserved bytes: expected zeros");
  // Divided, not multiplied: a manifest that lies may ask for more windows than 2^64 bytes hold.
  const uint64_t payload = map.size() - kHeaderBytes;
  if (payload / h.window_bytes != h.num_windows || payload % h.window_bytes != 0)
    fail_shard(path, cat("file size: expected ", h.num_windows, " windows of ", h.window_bytes, " bytes, found ",
                         payload, " bytes behind the header (truncated?)"));
  return map;
}

}  // namespace

fs::path teacher_cache_shard_path(const fs::path& directory, uint64_t shard) {
  const std::string digits = std::to_string(shard);
  return directory / cat("shard-", std::string(5 - std::min<size_t>(5, digits.size()), '0'), digits, ".bin");
}

uint32_t TeacherCacheShardHeader::expected_crc() const {
  TeacherCacheShardHeader header = *this;
  header.header_crc = 0;
  return crc32c(std::as_bytes(std::span(&header, 1)));
}

std::optional<MappedFile> open_teacher_cache_shard(const fs::path& directory, const TeacherCacheManifest& manifest,
                                                   uint64_t shard) {
  const fs::path path = teacher_cache_shard_path(directory, shard);
  if (teacher_cache_lacks(path)) return std::nullopt;
  return open_shard(path, manifest, shard);
}

TeacherCache::TeacherCache(const fs::path& directory) : directory_(directory) {
  const auto manifest = TeacherCacheManifest::read(directory);
  if (!manifest)
    throw UserError(cat(directory.string(),
                        ": expected a teacher cache, found no manifest.json; write one with `satin "
                        "cache-teacher CONFIG.yaml`"));
  manifest_ = *manifest;
  while (shards_.size() < manifest_.num_shards()) {
    auto shard = open_teacher_cache_shard(directory, manifest_, shards_.size());
    if (!shard) break;
    shards_.push_back(std::move(*shard));
  }
  if (shards_.size() < manifest_.num_shards())
    throw UserError(cat(directory.string(), ": expected a complete teacher cache, found ",
                        shards_.size() * manifest_.windows_per_shard, " of ", description().num_windows,
                        " windows; run `satin cache-teacher` again, which goes on from there"));
  bytes_ = fs::file_size(teacher_cache_manifest_path(directory));
  for (const MappedFile& shard : shards_) bytes_ += shard.size();
  checked_ = std::make_unique<std::atomic<bool>[]>(shards_.size());
}

const MappedFile& TeacherCache::checked_shard(uint64_t shard) const {
  const MappedFile& map = shards_[shard];
  if (checked_[shard].load(std::memory_order_relaxed)) return map;
  TeacherCacheShardHeader header;
  std::memcpy(&header, map.bytes().data(), sizeof header);
  if (const uint32_t crc = crc32c(map.bytes().subspan(kHeaderBytes)); crc != header.payload_crc)
    fail_shard(map.path(), cat("windows: checksum expected ", header.payload_crc, ", found ", crc, " (damaged)"));
  checked_[shard].store(true, std::memory_order_relaxed);
  return map;
}

void TeacherCache::read(uint64_t window, TeacherRows& out, uint64_t copy) const {
  SATIN_CHECK(window < description().num_windows, window, " of ", description().num_windows);
  SATIN_CHECK(copy < std::max<uint64_t>(1, description().copies), "copy ", copy, " of ", description().copies);
  const MappedFile& map = checked_shard(window / manifest_.windows_per_shard);
  const std::byte* at = map.bytes().data() + kHeaderBytes +
                        window % manifest_.windows_per_shard * manifest_.window_bytes() + copy * manifest_.text_bytes();
  const auto tokens = static_cast<uint64_t>(description().sequence_length);
  const uint64_t entries = tokens * static_cast<uint64_t>(description().top_k);
  const auto append_ids = [&](uint64_t n, std::vector<int32_t>& ids, const char* what) {
    const auto of_type = [&](auto zero) {
      using T = decltype(zero);
      T largest = 0;
      append<T>(at, n, ids, [&](T id) {
        largest = std::max(largest, id);
        return static_cast<int32_t>(id);
      });
      return uint32_t{largest};
    };
    const uint32_t largest = manifest_.id_bytes() == 2 ? of_type(uint16_t{0}) : of_type(uint32_t{0});
    if (largest >= static_cast<uint32_t>(description().vocab_size))
      fail_shard(map.path(), cat(what, ": ", largest, " in window ", window, " is outside the vocabulary of ",
                                 description().vocab_size));
    at += TeacherCacheManifest::padded(n * manifest_.id_bytes());
  };
  if (description().copies > 0) append_ids(tokens, out.tokens, "tokens");
  append_ids(entries, out.ids, "ids");
  append<uint16_t>(at, entries, out.logits, from_half);
  at += TeacherCacheManifest::padded(entries * 2);
  for (std::vector<float>* sums : {&out.log_total, &out.log_rest}) {
    append<float>(at, tokens, *sums, [](float x) { return x; });
    at += TeacherCacheManifest::padded(tokens * 4);
  }
}

void check_fits(const TeacherCache& cache, const TeacherCacheDescription& wanted) {
  std::string list;
  for (const std::string& one : differences(cache.description(), wanted)) list += (list.empty() ? "" : "; ") + one;
  if (!list.empty())
    throw UserError(cat("teacher.cache: ", cache.directory().string(), " was made of something else (",
                        cache.description().teacher, "): ", list,
                        "; make one with satin cache-teacher in another directory"));
}

}  // namespace satin::data
