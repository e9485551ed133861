// Token file (.tokens): tokenised documents on disk, read through a memory map, so data may be larger than memory.
// No torch here: the reader is fuzzed alone.
//
//   byte 0                                                                        all numbers little-endian
//   +---------------------------------------------------------------------------------------------------------+
//   | 0   char[8] magic "SATINTOK"        32  u32 bytes a token (2 | 4)    56  u32 CRC-32C of the tokens        |
//   | 8   u32     version (1)             36  u32 flags (1: loss mask)     60  u32 CRC-32C of document starts   |
//   | 12  u32     CRC-32C of the header   40  u32 tokenizer fingerprint    64  u32 CRC-32C of the loss mask     |
//   |             with this field zero    44  u32 zero                     68  zeros to byte 128                |
//   | 16  u64     number of tokens        48  u64 vocabulary size                                               |
//   | 24  u64     number of documents                                                                           |
//   +-- 128 --------------------------------------------------------------------------------------------------+
//   | tokens: u16 or u32 each, every one below the vocabulary size; zeros up to a multiple of 8 bytes           |
//   +---------------------------------------------------------------------------------------------------------+
//   | document starts: u64 index of each document's first token; the first is 0, each above the one before      |
//   +---------------------------------------------------------------------------------------------------------+
//   | loss mask (flag 1): bit i % 8 of byte i / 8 is set when token i is scored as a target                     |
//   +---------------------------------------------------------------------------------------------------------+
//   The file ends there. A tokenizer fingerprint of 0 means that the tokenizer is unknown.
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "core/file.h"

namespace satin::data {

/// The first 128 bytes of a token file.
struct TokenFileHeader {
  static constexpr std::array<char, 8> kMagic = {'S', 'A', 'T', 'I', 'N', 'T', 'O', 'K'};
  static constexpr uint32_t kVersion = 1;
  static constexpr uint32_t kFlagLossMask = 1;

  std::array<char, 8> magic = kMagic;
  uint32_t version = kVersion;
  uint32_t header_crc = 0;
  uint64_t num_tokens = 0;
  uint64_t num_documents = 0;
  uint32_t token_bytes = 2;
  uint32_t flags = 0;
  uint32_t tokenizer_fingerprint = 0;
  uint32_t zero = 0;
  uint64_t vocab_size = 0;
  uint32_t tokens_crc = 0;
  uint32_t documents_crc = 0;
  uint32_t mask_crc = 0;
  std::array<uint8_t, 60> reserved{};
};
static_assert(sizeof(TokenFileHeader) == 128);

/// Reads a token file. Safe to share between threads.
class TokenFile {
 public:
  /// Maps the file and checks the header against the file's size. Cost does not depend on the size.
  /// Errors: UserError naming the file and the field that is wrong.
  explicit TokenFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return map_.path(); }
  const TokenFileHeader& header() const { return header_; }
  uint64_t num_tokens() const { return header_.num_tokens; }
  uint64_t num_documents() const { return header_.num_documents; }
  bool has_loss_mask() const { return header_.flags & TokenFileHeader::kFlagLossMask; }

  /// Copies tokens [begin, begin + out.size()). Errors: UserError when one is not below the vocabulary size.
  void read_tokens(uint64_t begin, std::span<int64_t> out) const;
  /// Index of document d's first token.
  uint64_t document_start(uint64_t document) const;
  /// The first document that starts at or after `token`; num_documents() when there is none. O(log documents).
  uint64_t first_document_from(uint64_t token) const;
  /// Whether token i is scored as a target (always, without a loss mask).
  bool scored(uint64_t token) const;

  /// Reads everything: checksums, token range, order of the documents. About 1 GB/s.
  /// Errors: UserError naming the file and what is damaged.
  void verify() const;

 private:
  MappedFile map_;
  TokenFileHeader header_;
  const std::byte* tokens_ = nullptr;
  const std::byte* documents_ = nullptr;
  const std::byte* mask_ = nullptr;
};

/// Writes a token file in bounded memory; `path` appears whole at finish() or not at all.
class TokenFileWriter {
 public:
  struct Options {
    uint64_t vocab_size = 0;
    uint32_t tokenizer_fingerprint = 0;
    bool loss_mask = false;
  };
  /// Errors (here and below): UserError when the file cannot be written, naming the system's reason.
  TokenFileWriter(std::filesystem::path path, const Options& options);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  /// Appends a document (at least one token). `scored`: one flag a token, or empty when all are scored.
  /// Errors: UserError when an id is not in [0, vocab_size).
  void add_document(std::span<const int32_t> ids, std::span<const uint8_t> scored = {});
  /// Appends to the last document, which may so be longer than memory.
  void extend_document(std::span<const int32_t> ids, std::span<const uint8_t> scored = {});

  uint64_t num_tokens() const { return header_.num_tokens; }
  uint64_t num_documents() const { return header_.num_documents; }

  /// Completes, syncs and renames. Errors: UserError when there are no tokens.
  void finish();

 private:
  class Section;  // a buffered file with a running checksum

  std::filesystem::path path_, temporary_;
  TokenFileHeader header_;
  std::unique_ptr<Section> tokens_, documents_, mask_;
  uint8_t mask_byte_ = 0;
};

}  // namespace satin::data
