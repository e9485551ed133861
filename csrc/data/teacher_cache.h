// Teacher cache: what a student needs of its teacher's logits, on disk, so that training runs without the teacher.
// A directory of manifest.json (TeacherCacheDescription, field by field) and shards of consecutive windows. Of each
// token it keeps the k largest logits, what the whole vocabulary sums to, and how much probability the k leave out: the
// top-k losses are then as with the teacher itself, up to the rounding of logits to fp16. No torch here: the reader is
// fuzzed alone.
//
//   shard-00000.bin, shard-00001.bin, ...                                        all numbers little-endian
//   +-----------------------------------------------------------------------------------------------------+
//   | 0   char[8] magic "SATINTCH"               24  u64 first window                                     |
//   | 8   u32     version (2: copies, else 1)    32  u64 number of windows                                |
//   | 12  u32     CRC-32C of the header          40  u64 bytes a window                                   |
//   |             with this field zero           48  u32 CRC-32C of the windows                           |
//   | 16  u32     CRC-32C of manifest.json       52  zeros to byte 64                                     |
//   | 20  u32     index of the shard                                                                      |
//   +-- 64 -----------------------------------------------------------------------------------------------+
//   | windows of T tokens, each of four arrays, each filled up with zeros to a multiple of 8 bytes;       |
//   | with copies each window is that many texts, one after the other, with one more array first:         |
//   |   tokens     [T]     u16 or u32 as below: the text itself, which is not that of the data            |
//   |   ids        [T, k]  u16 (vocabulary of at most 65536) or u32, in falling order of the logit        |
//   |   logits     [T, k]  fp16: logit minus the row's largest; id 0 at -inf where there are fewer than k |
//   |   log_total  [T]     fp32: ln sum exp of all logits, minus the row's largest                        |
//   |   log_rest   [T]     fp32: ln(1 - P), P the probability of the k ids; -inf where they are all       |
//   +-----------------------------------------------------------------------------------------------------+
//   The file ends there. Every shard holds the manifest's windows_per_shard, the last what is left.
//
// Copies: the teacher on perturbed copies of each window (loss.neighbourhood) instead of its clean text. Copy c of
// window w has the draws of sample c * num_windows + w: what a run that reads the windows in order, epoch after epoch,
// draws of them.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"

namespace satin::data {

/// What a cache was made of. A cache serves a run whose own description has no differences() from it.
struct TeacherCacheDescription {
  std::string teacher;                 ///< path of the model, for people
  uint32_t teacher_checksum = 0;       ///< of its weights
  uint32_t tokenizer_fingerprint = 0;  ///< as in token files
  uint32_t data_checksum = 0;          ///< of the windows (Position::data_checksum); 0: unknown
  uint64_t num_windows = 0;            ///< of all sources together
  int64_t sequence_length = 0;         ///< tokens a window, T
  int64_t top_k = 0;                   ///< ids a token, k
  int64_t vocab_size = 0;
  bool attention_across_documents = false;
  std::string compute_dtype;  ///< the teacher's arithmetic ("bfloat16"), for people
  uint64_t copies = 0;        ///< perturbed texts a window; 0: its clean text
  /// How copies were drawn, in the words of loss.neighbourhood; unused without copies.
  struct Neighbourhood {
    double rate = 0;
    int64_t top_k = 0;
    double temperature = 0;
    int64_t depth = 0;
    std::string source;
    double random_share = 0;
    uint64_t seed = 0;
  };
  Neighbourhood neighbourhood = {};
};

/// One line a field that differs ("top_k: 40 in the cache, 64 here"); empty when the cache fits. Fields for people are
/// not compared, nor data_checksum or num_windows where either side has 0.
std::vector<std::string> differences(const TeacherCacheDescription& cached, const TeacherCacheDescription& wanted);

/// manifest.json: the description, and how windows are laid out in shards.
struct TeacherCacheManifest {
  static constexpr uint32_t kNewestVersion = 2;

  TeacherCacheDescription description;
  uint64_t windows_per_shard = 0;
  uint32_t crc = 0;  ///< CRC-32C of the file: shards carry it, so that those of another cache are refused

  /// Nothing where there is no such file. Errors: UserError naming the file and the field that is absent or wrong.
  static std::optional<TeacherCacheManifest> read(const std::filesystem::path& directory);
  /// The file's text.
  std::string text() const;

  /// 1, as before there were copies, or 2 with them.
  uint32_t version() const { return description.copies > 0 ? 2 : 1; }
  uint64_t num_shards() const { return (description.num_windows - 1) / windows_per_shard + 1; }
  uint64_t windows_in_shard(uint64_t shard) const;
  uint64_t id_bytes() const { return description.vocab_size <= 65536 ? 2 : 4; }
  /// Of one text of a window: its clean one, or a copy.
  uint64_t text_bytes() const;
  uint64_t window_bytes() const { return std::max<uint64_t>(1, description.copies) * text_bytes(); }
  static constexpr uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }
};
/// Whether nothing is there. What is there but cannot be looked at is left to the reader, who says why.
bool teacher_cache_lacks(const std::filesystem::path& file);
std::filesystem::path teacher_cache_manifest_path(const std::filesystem::path& directory);
std::filesystem::path teacher_cache_shard_path(const std::filesystem::path& directory, uint64_t shard);

/// The first 64 bytes of a shard.
struct TeacherCacheShardHeader {
  static constexpr std::array<char, 8> kMagic = {'S', 'A', 'T', 'I', 'N', 'T', 'C', 'H'};
  std::array<char, 8> magic = kMagic;
  uint32_t version = 1;  ///< the manifest's
  uint32_t header_crc = 0;
  uint32_t manifest_crc = 0;
  uint32_t index = 0;
  uint64_t first_window = 0;
  uint64_t num_windows = 0;
  uint64_t window_bytes = 0;
  uint32_t payload_crc = 0;
  std::array<uint8_t, 12> reserved{};

  /// What header_crc must be.
  uint32_t expected_crc() const;
};
static_assert(sizeof(TeacherCacheShardHeader) == 64);

/// Maps a shard; nothing where it is absent. Checks its header against the manifest and the file's size, not the
/// windows' checksum. Errors: UserError naming the file and the field that is wrong.
std::optional<MappedFile> open_teacher_cache_shard(const std::filesystem::path& directory,
                                                   const TeacherCacheManifest& manifest, uint64_t shard);

/// Rows of n tokens, one after the other.
struct TeacherRows {
  std::vector<int32_t> ids;          ///< [n, k]
  std::vector<float> logits;         ///< [n, k], minus the row's largest
  std::vector<float> log_total;      ///< [n]
  std::vector<float> log_rest;       ///< [n]
  std::vector<int32_t> tokens = {};  ///< [n] of copies; empty without
};

/// Reads a complete cache. Safe to share between threads.
class TeacherCache {
 public:
  /// Maps all shards and checks their headers. Errors: UserError naming the file and the field that is wrong, or how
  /// many windows of how many are there.
  explicit TeacherCache(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const { return directory_; }
  const TeacherCacheDescription& description() const { return manifest_.description; }
  /// Appends the rows of one window (of one of its copies) to `out`; the first read of a shard also checks its
  /// checksum. Errors: UserError naming the file when it is damaged, or an id is not below vocab_size; `out` then holds
  /// part of the window.
  void read(uint64_t window, TeacherRows& out, uint64_t copy = 0) const;
  /// Of all files.
  uint64_t bytes() const { return bytes_; }

 private:
  const MappedFile& checked_shard(uint64_t shard) const;

  std::filesystem::path directory_;
  TeacherCacheManifest manifest_;
  std::vector<MappedFile> shards_;
  std::unique_ptr<std::atomic<bool>[]> checked_;  // a shard's checksum was right; two threads may find out at once
  uint64_t bytes_ = 0;
};

/// Errors: UserError listing the differences() of the cache from what is wanted, and what to do.
void check_fits(const TeacherCache& cache, const TeacherCacheDescription& wanted);

/// Writes a cache, a shard at a time: each appears whole or not at all. On a directory that was left incomplete it adds
/// the shards that are absent. Holds one shard in memory.
class TeacherCacheWriter {
 public:
  static constexpr uint64_t kShardBytes = 64 << 20;
  /// Of several writers at work together, number `index` has every count-th shard. The first is there before the
  /// others.
  struct Share {
    uint64_t index = 0, count = 1;
  };

  /// Writes the manifest, or compares it with the description. `shard_bytes`: about how large a new cache's shards are.
  /// Errors: UserError when the directory holds a cache of another description (naming the fields), a shard that is not
  /// usable, or another writer is at work there; here and below when a file cannot be written.
  TeacherCacheWriter(std::filesystem::path directory, const TeacherCacheDescription& description,
                     uint64_t shard_bytes = kShardBytes, Share share = {0, 1});
  ~TeacherCacheWriter();
  TeacherCacheWriter(const TeacherCacheWriter&) = delete;
  TeacherCacheWriter& operator=(const TeacherCacheWriter&) = delete;

  /// The window that add() takes next; num_windows when this writer has no more to do.
  uint64_t next_window() const { return next_window_; }
  /// The first window after next_window() that is of another shard, or num_windows.
  uint64_t end_of_shard() const;
  /// How many add() has still to take.
  uint64_t windows_left() const { return windows_left_; }
  /// Adds one text, each window's copies in order: ids and logits [T, k] in falling order of the logit, log_total and
  /// log_rest [T], tokens [T] of a copy (none without copies). Offsets are rounded to the nearest fp16, ties to even; a
  /// finite one stays finite (at least -65504).
  /// Errors: UserError when a value is NaN or a sum infinite: the teacher has diverged. After an error the writer is
  /// of no further use: a new one goes on after the last complete shard.
  void add(std::span<const int32_t> ids, std::span<const float> logits, std::span<const float> log_total,
           std::span<const float> log_rest, std::span<const int32_t> tokens = {});
  /// Ends the cache, when all writers have done their share. Errors: UserError when windows are missing.
  void finish();

 private:
  void open(const TeacherCacheDescription& description, uint64_t shard_bytes);
  /// Goes to the first absent shard of this writer from `from` on.
  void begin_shard(uint64_t from);
  /// The first shard of this writer from `shard` on that is absent, or the number of shards.
  uint64_t next_absent(uint64_t shard) const;
  void write_shard();

  std::filesystem::path directory_;
  TeacherCacheManifest manifest_;
  Share share_;
  uint64_t next_window_ = 0, next_copy_ = 0, windows_left_ = 0;
  std::string shard_;  // the bytes of the shard being filled
  int lock_ = -1;      // the directory's descriptor, locked by the first writer
};

}  // namespace satin::data
