#include "data/teacher_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "core/error.h"

namespace satin::data {
namespace {
namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* kFormat = "satin-teacher-cache";
constexpr uint64_t kHeaderBytes = sizeof(TeacherCacheShardHeader);
// Far above any use; products of them stay far below 2^64.
constexpr int64_t kMaxTokens = 1 << 24, kMaxTopK = 1 << 24, kMaxVocab = int64_t{1} << 31;
constexpr uint64_t kMaxWindows = uint64_t{1} << 48;

/// The one list of the manifest's fields: visit(name, field) for each of a description.
template <class Description, class Visit>
void for_each_field(Description& d, Visit&& visit) {
  visit("teacher", d.teacher);
  visit("teacher_checksum", d.teacher_checksum);
  visit("tokenizer_fingerprint", d.tokenizer_fingerprint);
  visit("data_checksum", d.data_checksum);
  visit("num_windows", d.num_windows);
  visit("sequence_length", d.sequence_length);
  visit("top_k", d.top_k);
  visit("vocab_size", d.vocab_size);
  visit("attention_across_documents", d.attention_across_documents);
  visit("compute_dtype", d.compute_dtype);
}

[[noreturn]] void fail_manifest(const fs::path& path, const std::string& what) {
  throw UserError(cat(path.string(), ": not a usable teacher cache: ", what,
                      "; remove the directory and write it again with `satin cache-teacher`"));
}

[[noreturn]] void fail_shard(const fs::path& path, const std::string& what) {
  throw UserError(cat(path.string(), ": not a usable shard of its teacher cache: ", what,
                      "; remove this file and run `satin cache-teacher` again, which writes it anew"));
}

/// A field's value. JSON's numbers are not converted: a negative or fractional count is refused.
template <class T>
void load_field(const fs::path& path, const ordered_json& json, const char* name, T& field) {
  const auto at = json.find(name);
  if (at == json.end()) fail_manifest(path, cat("expected the field ", name, ", found none"));
  const auto refuse = [&](const char* expected) {
    const bool is_short = at->is_number() || at->is_boolean();
    fail_manifest(path, cat(name, ": expected ", expected, ", found ", is_short ? at->dump() : at->type_name()));
  };
  if constexpr (std::is_same_v<T, std::string>) {
    if (!at->is_string()) refuse("a string");
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!at->is_boolean()) refuse("true or false");
  } else {
    if (!at->is_number_unsigned() ||
        at->template get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<T>::max()))
      refuse(sizeof(T) == 4 ? "a whole number below 2^32" : "a whole number");
  }
  field = at->template get<T>();
}

template <class T>
void check_range(const fs::path& path, const char* name, T value, T largest) {
  if (value < 1 || value > largest) fail_manifest(path, cat(name, ": expected 1 to ", largest, ", found ", value));
}

/// What is there but cannot be looked at is left to the reader, who says why.
bool is_absent(const fs::path& path) {
  std::error_code error;
  return fs::status(path, error).type() == fs::file_type::not_found;
}

uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

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
  expect("version", TeacherCacheShardHeader::kVersion, h.version);
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

std::vector<std::string> differences(const TeacherCacheDescription& cached, const TeacherCacheDescription& wanted) {
  std::vector<std::string> lines;
  const auto compare = [&](const char* name, auto in_cache, auto here) {
    if (in_cache != here) lines.push_back(cat(std::boolalpha, name, ": ", in_cache, " in the cache, ", here, " here"));
  };
  const auto compare_known = [&](const char* name, auto in_cache, auto here) {
    if (in_cache != 0 && here != 0) compare(name, in_cache, here);
  };
  compare("teacher_checksum", cached.teacher_checksum, wanted.teacher_checksum);
  compare("tokenizer_fingerprint", cached.tokenizer_fingerprint, wanted.tokenizer_fingerprint);
  compare_known("data_checksum", cached.data_checksum, wanted.data_checksum);
  compare_known("num_windows", cached.num_windows, wanted.num_windows);
  compare("sequence_length", cached.sequence_length, wanted.sequence_length);
  compare("top_k", cached.top_k, wanted.top_k);
  compare("vocab_size", cached.vocab_size, wanted.vocab_size);
  compare("attention_across_documents", cached.attention_across_documents, wanted.attention_across_documents);
  return lines;
}

fs::path teacher_cache_manifest_path(const fs::path& directory) { return directory / "manifest.json"; }

fs::path teacher_cache_shard_path(const fs::path& directory, uint64_t shard) {
  const std::string digits = std::to_string(shard);
  return directory / cat("shard-", std::string(5 - std::min<size_t>(5, digits.size()), '0'), digits, ".bin");
}

std::optional<TeacherCacheManifest> TeacherCacheManifest::read(const fs::path& directory) {
  const fs::path path = teacher_cache_manifest_path(directory);
  if (is_absent(path)) return std::nullopt;
  const std::string text = read_file(path);
  const ordered_json json = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) fail_manifest(path, "expected a JSON object (the file is damaged)");
  std::string format;
  uint32_t version = 0;
  load_field(path, json, "format", format);
  if (format != kFormat) fail_manifest(path, cat("format: expected ", kFormat, ", found ", format));
  load_field(path, json, "version", version);
  if (version != kVersion) fail_manifest(path, cat("version: expected ", kVersion, ", found ", version));
  TeacherCacheManifest manifest;
  manifest.crc = crc32c(std::as_bytes(std::span(text)));
  TeacherCacheDescription& d = manifest.description;
  for_each_field(d, [&](const char* name, auto& field) { load_field(path, json, name, field); });
  load_field(path, json, "windows_per_shard", manifest.windows_per_shard);
  check_range(path, "num_windows", d.num_windows, kMaxWindows);
  check_range(path, "sequence_length", d.sequence_length, kMaxTokens);
  check_range(path, "top_k", d.top_k, kMaxTopK);
  check_range(path, "vocab_size", d.vocab_size, kMaxVocab);
  check_range(path, "windows_per_shard", manifest.windows_per_shard, d.num_windows);
  return manifest;
}

std::string TeacherCacheManifest::text() const {
  ordered_json json{{"format", kFormat}, {"version", kVersion}};
  for_each_field(description, [&](const char* name, const auto& field) { json[name] = field; });
  json["windows_per_shard"] = windows_per_shard;
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";  // a path need not be UTF-8
}

uint64_t TeacherCacheManifest::windows_in_shard(uint64_t shard) const {
  return std::min(windows_per_shard, description.num_windows - shard * windows_per_shard);
}

uint64_t TeacherCacheManifest::window_bytes() const {
  const auto tokens = static_cast<uint64_t>(description.sequence_length);
  const uint64_t entries = tokens * static_cast<uint64_t>(description.top_k);
  return padded(entries * id_bytes()) + padded(entries * 2) + 2 * padded(tokens * 4);
}

uint32_t TeacherCacheShardHeader::expected_crc() const {
  TeacherCacheShardHeader header = *this;
  header.header_crc = 0;
  return crc32c(std::as_bytes(std::span(&header, 1)));
}

std::vector<MappedFile> open_teacher_cache_shards(const fs::path& directory, const TeacherCacheManifest& manifest) {
  std::vector<MappedFile> shards;
  while (shards.size() < manifest.num_shards()) {
    const fs::path path = teacher_cache_shard_path(directory, shards.size());
    if (is_absent(path)) break;
    shards.push_back(open_shard(path, manifest, shards.size()));
  }
  return shards;
}

TeacherCache::TeacherCache(const fs::path& directory) : directory_(directory) {
  const auto manifest = TeacherCacheManifest::read(directory);
  if (!manifest)
    throw UserError(cat(directory.string(),
                        ": expected a teacher cache, found no manifest.json; write one with `satin "
                        "cache-teacher CONFIG.yaml`"));
  manifest_ = *manifest;
  shards_ = open_teacher_cache_shards(directory, manifest_);
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

void TeacherCache::read(uint64_t window, TeacherRows& out) const {
  SATIN_CHECK(window < description().num_windows, window, " of ", description().num_windows);
  const MappedFile& map = checked_shard(window / manifest_.windows_per_shard);
  const std::byte* at =
      map.bytes().data() + kHeaderBytes + window % manifest_.windows_per_shard * manifest_.window_bytes();
  const auto tokens = static_cast<uint64_t>(description().sequence_length);
  const uint64_t entries = tokens * static_cast<uint64_t>(description().top_k);
  const auto vocab_size = static_cast<uint32_t>(description().vocab_size);
  const auto append_ids = [&](auto zero) {
    using T = decltype(zero);
    T largest = 0;
    append<T>(at, entries, out.ids, [&](T id) {
      largest = std::max(largest, id);
      return static_cast<int32_t>(id);
    });
    if (largest >= vocab_size)
      fail_shard(map.path(),
                 cat("ids: ", largest, " in window ", window, " is outside the vocabulary of ", vocab_size));
    at += padded(entries * sizeof(T));
  };
  manifest_.id_bytes() == 2 ? append_ids(uint16_t{}) : append_ids(uint32_t{});
  append<uint16_t>(at, entries, out.logits, from_half);
  at += padded(entries * 2);
  const auto same = [](float x) { return x; };
  append<float>(at, tokens, out.log_total, same);
  at += padded(tokens * 4);
  append<float>(at, tokens, out.log_rest, same);
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
