#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "data/teacher_cache.h"

namespace satin::data {
namespace {
namespace fs = std::filesystem;

/// The nearest fp16 of x <= 0, ties to even; what is finite stays finite.
uint16_t to_half(float x) {
  const float size = std::isinf(x) ? -x : std::min(-x, 65504.0f);
  uint32_t half;
  if (std::isinf(size)) {
    half = 0x7c00;
  } else if (size < 0x1p-14f) {  // subnormal: floats in [.5, 1) are spaced 2^-24, as fp16 subnormals are
    half = std::bit_cast<uint32_t>(size + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  } else {
    const uint32_t bits = std::bit_cast<uint32_t>(size);
    half = ((bits + 0xfff + (bits >> 13 & 1)) >> 13) - ((127 - 15) << 10);
  }
  return static_cast<uint16_t>(half == 0 ? 0 : 0x8000 | half);
}

/// Appends an array and zeros up to a multiple of 8 bytes of it.
template <class T, class In, class Convert>
void append(std::string& out, std::span<const In> values, Convert convert) {
  size_t at = out.size();
  out.resize(at + (values.size() * sizeof(T) + 7) / 8 * 8);
  for (const In value : values) {
    const T converted = convert(value);
    std::memcpy(out.data() + at, &converted, sizeof converted);
    at += sizeof converted;
  }
}

void check_rows(uint64_t window, const TeacherCacheDescription& d, std::span<const int32_t> ids,
                std::span<const float> logits, std::span<const float> log_total, std::span<const float> log_rest,
                std::span<const int32_t> text) {
  const auto tokens = static_cast<size_t>(d.sequence_length), top_k = static_cast<size_t>(d.top_k);
  SATIN_CHECK(ids.size() == tokens * top_k && logits.size() == ids.size() && log_total.size() == tokens &&
                  log_rest.size() == tokens,
              ids.size(), " ids, ", logits.size(), " logits, ", log_total.size(), " and ", log_rest.size(),
              " sums for ", tokens, " tokens of ", top_k);
  SATIN_CHECK_EQ(text.size(), d.copies > 0 ? tokens : 0);
  for (const int32_t id : text) SATIN_CHECK(id >= 0 && id < d.vocab_size, "token ", id, " of ", d.vocab_size);
  for (size_t t = 0; t < tokens; ++t) {
    bool diverged = !std::isfinite(log_total[t]) || std::isnan(log_rest[t]) || log_rest[t] == INFINITY;
    for (size_t i = t * top_k; i < (t + 1) * top_k; ++i) {
      SATIN_CHECK(ids[i] >= 0 && ids[i] < d.vocab_size, "id ", ids[i], " of ", d.vocab_size);
      diverged |= std::isnan(logits[i]);
      SATIN_CHECK(diverged || (logits[i] <= 0 && (i == t * top_k || logits[i] <= logits[i - 1])),
                  "logits not in falling order from 0: ", logits[i], " at ", i);
    }
    if (diverged)
      throw UserError(cat("window ", window, ", token ", t, ": expected finite logits of the teacher, found NaN or ",
                          "infinity; check the teacher, or compute it in float32"));
  }
}

}  // namespace

TeacherCacheWriter::TeacherCacheWriter(fs::path directory, const TeacherCacheDescription& description,
                                       uint64_t shard_bytes, Share share)
    : directory_(std::move(directory)), share_(share) {
  SATIN_CHECK(description.num_windows > 0 && description.sequence_length > 0 && description.top_k > 0 &&
                  description.vocab_size > 0,
              description.num_windows, " windows of ", description.sequence_length, " tokens, ", description.top_k,
              " of ", description.vocab_size, " ids");
  SATIN_CHECK(share.index < share.count, "writer ", share.index, " of ", share.count);
  std::error_code error;
  fs::create_directories(directory_, error);
  lock_ = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) throw UserError(cat("cannot create ", directory_.string(), ": ", std::strerror(errno)));
  try {
    open(description, shard_bytes);
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

void TeacherCacheWriter::open(const TeacherCacheDescription& description, uint64_t shard_bytes) {
  const bool is_first = share_.index == 0;
  // File systems without locks go unguarded.
  if (is_first && ::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    throw UserError(cat(directory_.string(), ": another process is writing this teacher cache; wait for it"));
  auto manifest = TeacherCacheManifest::read(directory_);
  if (!manifest && is_first) {
    manifest_.description = description;
    manifest_.windows_per_shard =
        std::clamp<uint64_t>(shard_bytes / manifest_.window_bytes(), 1, description.num_windows);
    write_file_atomically(teacher_cache_manifest_path(directory_), manifest_.text());
    sync_path(directory_);
    manifest = TeacherCacheManifest::read(directory_);
  }
  SATIN_CHECK(manifest, directory_.string(), ": no manifest.json of the first writer");
  manifest_ = *manifest;
  std::string lines;
  for (const std::string& line : differences(manifest_.description, description)) lines += "\n  " + line;
  if (!lines.empty())
    throw UserError(cat(directory_.string(), " holds a teacher cache of something else:", lines,
                        "\ngive another directory, or remove this one"));
  for (uint64_t s = next_absent(share_.index); s < manifest_.num_shards(); s = next_absent(s + share_.count))
    windows_left_ += manifest_.windows_in_shard(s);
  begin_shard(share_.index);
}

uint64_t TeacherCacheWriter::next_absent(uint64_t shard) const {
  while (shard < manifest_.num_shards() && open_teacher_cache_shard(directory_, manifest_, shard))
    shard += share_.count;
  return shard;
}

void TeacherCacheWriter::begin_shard(uint64_t from) {
  next_window_ = std::min(next_absent(from) * manifest_.windows_per_shard, manifest_.description.num_windows);
}

uint64_t TeacherCacheWriter::end_of_shard() const {
  const uint64_t shard = next_window_ / manifest_.windows_per_shard;
  return std::min((shard + 1) * manifest_.windows_per_shard, manifest_.description.num_windows);
}

TeacherCacheWriter::~TeacherCacheWriter() { ::close(lock_); }

void TeacherCacheWriter::add(std::span<const int32_t> ids, std::span<const float> logits,
                             std::span<const float> log_total, std::span<const float> log_rest,
                             std::span<const int32_t> tokens) {
  SATIN_CHECK(next_window_ < manifest_.description.num_windows, "the cache is complete");
  check_rows(next_window_, manifest_.description, ids, logits, log_total, log_rest, tokens);
  if (shard_.empty()) {
    const uint64_t windows = manifest_.windows_in_shard(next_window_ / manifest_.windows_per_shard);
    shard_.reserve(sizeof(TeacherCacheShardHeader) + windows * manifest_.window_bytes());
    shard_.resize(sizeof(TeacherCacheShardHeader));  // its place
  }
  const auto to_id = [](int32_t id) { return static_cast<uint32_t>(id); };
  const auto same = [](float x) { return x; };
  for (const auto& list : {tokens, ids})
    manifest_.id_bytes() == 2 ? append<uint16_t>(shard_, list, to_id) : append<uint32_t>(shard_, list, to_id);
  append<uint16_t>(shard_, logits, to_half);
  append<float>(shard_, log_total, same);
  append<float>(shard_, log_rest, same);
  if (++next_copy_ < manifest_.description.copies) return;
  next_copy_ = 0;
  --windows_left_;
  if (next_window_ + 1 < end_of_shard()) {
    ++next_window_;
    return;
  }
  write_shard();
  begin_shard(next_window_ / manifest_.windows_per_shard + share_.count);
}

void TeacherCacheWriter::write_shard() {
  TeacherCacheShardHeader header;
  const uint64_t shard = next_window_ / manifest_.windows_per_shard;
  header.version = manifest_.version();
  header.manifest_crc = manifest_.crc;
  header.index = static_cast<uint32_t>(shard);
  header.first_window = shard * manifest_.windows_per_shard;
  header.num_windows = manifest_.windows_in_shard(shard);
  header.window_bytes = manifest_.window_bytes();
  header.payload_crc = crc32c(std::as_bytes(std::span(shard_)).subspan(sizeof header));
  header.header_crc = header.expected_crc();
  std::memcpy(shard_.data(), &header, sizeof header);
  write_file_atomically(teacher_cache_shard_path(directory_, shard), shard_);
  sync_path(directory_);
  shard_.clear();
}

void TeacherCacheWriter::finish() {  // a shard's last window's add() wrote it
  uint64_t found = 0;
  for (uint64_t shard = 0; shard < manifest_.num_shards(); ++shard)
    if (!teacher_cache_lacks(teacher_cache_shard_path(directory_, shard))) found += manifest_.windows_in_shard(shard);
  if (found != manifest_.description.num_windows)
    throw UserError(cat(directory_.string(), ": expected ", manifest_.description.num_windows,
                        " windows of the teacher, found ", found,
                        "; run `satin cache-teacher` again, which adds the shards that are absent"));
}

}  // namespace satin::data
