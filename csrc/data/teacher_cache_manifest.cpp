// manifest.json of a teacher cache: what the cache was made of, and how large its parts are.
#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "core/error.h"
#include "data/teacher_cache.h"

namespace satin::data {
namespace {
namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* kFormat = "satin-teacher-cache";
// Far above any use; products of them stay below 2^62.
constexpr int64_t kMaxTokens = 1 << 24, kMaxTopK = 1 << 24, kMaxVocab = int64_t{1} << 31;
constexpr uint64_t kMaxWindows = uint64_t{1} << 48, kMaxCopies = 1024;

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
/// ... and of those that a cache of copies has besides.
template <class Description, class Visit>
void for_each_field_of_copies(Description& d, Visit&& visit) {
  visit("copies", d.copies);
  visit("neighbourhood_rate", d.neighbourhood.rate);
  visit("neighbourhood_top_k", d.neighbourhood.top_k);
  visit("neighbourhood_temperature", d.neighbourhood.temperature);
  visit("neighbourhood_depth", d.neighbourhood.depth);
  visit("neighbourhood_source", d.neighbourhood.source);
  visit("neighbourhood_random_share", d.neighbourhood.random_share);
  visit("neighbourhood_seed", d.neighbourhood.seed);
}

[[noreturn]] void fail_manifest(const fs::path& path, const std::string& what) {
  throw UserError(cat(path.string(), ": not a usable teacher cache: ", what,
                      "; remove the directory and write it again with `satin cache-teacher`"));
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
  } else if constexpr (std::is_same_v<T, double>) {
    if (!at->is_number()) refuse("a number");
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
  compare("copies", cached.copies, wanted.copies);
  if (cached.copies == 0 || wanted.copies == 0) return lines;
  const TeacherCacheDescription::Neighbourhood &a = cached.neighbourhood, &b = wanted.neighbourhood;
  compare("neighbourhood_rate", a.rate, b.rate);
  compare("neighbourhood_top_k", a.top_k, b.top_k);
  compare("neighbourhood_temperature", a.temperature, b.temperature);
  compare("neighbourhood_depth", a.depth, b.depth);
  compare("neighbourhood_source", a.source, b.source);
  compare("neighbourhood_random_share", a.random_share, b.random_share);
  compare("neighbourhood_seed", a.seed, b.seed);
  return lines;
}

bool teacher_cache_lacks(const fs::path& file) {
  std::error_code error;
  return fs::status(file, error).type() == fs::file_type::not_found;
}

fs::path teacher_cache_manifest_path(const fs::path& directory) { return directory / "manifest.json"; }

std::optional<TeacherCacheManifest> TeacherCacheManifest::read(const fs::path& directory) {
  const fs::path path = teacher_cache_manifest_path(directory);
  if (teacher_cache_lacks(path)) return std::nullopt;
  const std::string text = read_file(path);
  const ordered_json json = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) fail_manifest(path, "expected a JSON object (the file is damaged)");
  std::string format;
  uint32_t version = 0;
  load_field(path, json, "format", format);
  if (format != kFormat) fail_manifest(path, cat("format: expected ", kFormat, ", found ", format));
  load_field(path, json, "version", version);
  if (version < 1 || version > kNewestVersion)
    fail_manifest(path, cat("version: expected 1 to ", kNewestVersion, ", found ", version));
  TeacherCacheManifest manifest;
  manifest.crc = crc32c(std::as_bytes(std::span(text)));
  TeacherCacheDescription& d = manifest.description;
  for_each_field(d, [&](const char* name, auto& field) { load_field(path, json, name, field); });
  if (version > 1) {
    for_each_field_of_copies(d, [&](const char* name, auto& field) { load_field(path, json, name, field); });
    check_range(path, "copies", d.copies, kMaxCopies);
  }
  load_field(path, json, "windows_per_shard", manifest.windows_per_shard);
  check_range(path, "num_windows", d.num_windows, kMaxWindows);
  check_range(path, "sequence_length", d.sequence_length, kMaxTokens);
  check_range(path, "top_k", d.top_k, kMaxTopK);
  check_range(path, "vocab_size", d.vocab_size, kMaxVocab);
  check_range(path, "windows_per_shard", manifest.windows_per_shard, d.num_windows);
  return manifest;
}

std::string TeacherCacheManifest::text() const {
  ordered_json json{{"format", kFormat}, {"version", version()}};
  const auto add = [&](const char* name, const auto& field) { json[name] = field; };
  for_each_field(description, add);
  if (description.copies > 0) for_each_field_of_copies(description, add);
  json["windows_per_shard"] = windows_per_shard;
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";  // a path need not be UTF-8
}

uint64_t TeacherCacheManifest::windows_in_shard(uint64_t shard) const {
  return std::min(windows_per_shard, description.num_windows - shard * windows_per_shard);
}

uint64_t TeacherCacheManifest::text_bytes() const {
  const auto tokens = static_cast<uint64_t>(description.sequence_length);
  const uint64_t entries = tokens * static_cast<uint64_t>(description.top_k);
  const uint64_t rows = padded(entries * id_bytes()) + padded(entries * 2) + 2 * padded(tokens * 4);
  return rows + (description.copies > 0 ? padded(tokens * id_bytes()) : 0);
}

}  // namespace satin::data
