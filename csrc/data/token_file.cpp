#include "data/token_file.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace satin::data {
namespace {

constexpr uint64_t kFileHeaderBytes = sizeof(TokenFileHeader);

template <class T>
T load(const std::byte* at) {  // the map's alignment is the file's: do not rely on it
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

uint32_t header_crc(TokenFileHeader header) {
  header.header_crc = 0;
  return crc32c(std::as_bytes(std::span(&header, 1)));
}

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) {
  throw UserError(cat(path.string(), ": not a usable token file: ", what, "; write it again with `satin tokenize`"));
}

void check_header(const std::filesystem::path& path, const TokenFileHeader& h, uint64_t file_size) {
  if (h.version != TokenFileHeader::kVersion)
    fail(path, cat("version: expected ", TokenFileHeader::kVersion, ", found ", h.version));
  if (const uint32_t crc = header_crc(h); crc != h.header_crc)
    fail(path, cat("header checksum: expected ", crc, ", found ", h.header_crc, " (the file is damaged)"));
  if (h.token_bytes != 2 && h.token_bytes != 4)
    fail(path, cat("bytes a token: expected 2 or 4, found ", h.token_bytes));
  if (h.flags & ~TokenFileHeader::kFlagLossMask) fail(path, cat("flags: unknown bits in ", h.flags));
  if (h.zero != 0 || std::any_of(h.reserved.begin(), h.reserved.end(), [](uint8_t b) { return b != 0; }))
    fail(path, "reserved bytes: expected zeros");
  if (h.vocab_size == 0 || h.vocab_size > (1ull << 31) || (h.token_bytes == 2 && h.vocab_size > 65536))
    fail(path, cat("vocabulary size: ", h.vocab_size, " does not fit ", h.token_bytes, "-byte tokens"));
  if (h.num_tokens == 0) fail(path, "number of tokens: 0");
  if (h.num_documents == 0 || h.num_documents > h.num_tokens)
    fail(path, cat("number of documents: expected 1 to ", h.num_tokens, ", found ", h.num_documents));
  const uint64_t room = file_size - kFileHeaderBytes;
  if (h.num_tokens > room / h.token_bytes)  // also keeps the sums below from overflowing
    fail(path, cat("number of tokens: ", h.num_tokens, " do not fit in a file of ", file_size, " bytes (truncated?)"));
  if (h.num_documents > room / 8)
    fail(path, cat("number of documents: ", h.num_documents, " do not fit in a file of ", file_size, " bytes"));
  const uint64_t mask_bytes = h.flags & TokenFileHeader::kFlagLossMask ? (h.num_tokens + 7) / 8 : 0;
  const uint64_t expected = kFileHeaderBytes + padded(h.num_tokens * h.token_bytes) + h.num_documents * 8 + mask_bytes;
  if (expected != file_size)
    fail(path, cat("file size: expected ", expected, " bytes for ", h.num_tokens, " tokens and ", h.num_documents,
                   " documents, found ", file_size));
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& path) : map_(path) {
  const std::byte* bytes = map_.bytes().data();
  const size_t magic_bytes = std::min(map_.size(), TokenFileHeader::kMagic.size());
  if (magic_bytes == 0 || std::memcmp(bytes, TokenFileHeader::kMagic.data(), magic_bytes) != 0)
    fail(path, "magic: the file does not begin with SATINTOK");
  if (map_.size() < kFileHeaderBytes)
    fail(path, cat("file size: expected at least ", kFileHeaderBytes, " bytes, found ", map_.size()));
  header_ = load<TokenFileHeader>(bytes);
  check_header(path, header_, map_.size());
  tokens_ = bytes + kFileHeaderBytes;
  documents_ = tokens_ + padded(header_.num_tokens * header_.token_bytes);
  if (has_loss_mask()) mask_ = documents_ + header_.num_documents * 8;
  if (document_start(0) != 0) fail(path, cat("document starts: expected the first at 0, found ", document_start(0)));
}

void TokenFile::read_tokens(uint64_t begin, std::span<int64_t> out) const {
  SATIN_CHECK(begin <= num_tokens() && out.size() <= num_tokens() - begin, begin, " + ", out.size(), " of ",
              num_tokens());
  const auto copy = [&](auto zero) {
    using T = decltype(zero);
    const std::byte* from = tokens_ + begin * sizeof(T);
    T largest = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      const T id = load<T>(from + i * sizeof(T));
      largest = std::max(largest, id);
      out[i] = id;
    }
    if (!out.empty() && largest >= header_.vocab_size)
      fail(path(), cat("tokens: id ", largest, " within tokens ", begin, " to ", begin + out.size() - 1,
                       " is outside the vocabulary of ", header_.vocab_size));
  };
  header_.token_bytes == 2 ? copy(uint16_t{}) : copy(uint32_t{});
}

uint64_t TokenFile::document_start(uint64_t document) const {
  SATIN_CHECK(document < num_documents(), document, " of ", num_documents());
  return load<uint64_t>(documents_ + document * 8);
}

uint64_t TokenFile::first_document_from(uint64_t token) const {
  uint64_t low = 0, high = num_documents();
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (document_start(middle) < token)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

bool TokenFile::scored(uint64_t token) const {
  SATIN_CHECK(token < num_tokens(), token, " of ", num_tokens());
  return !mask_ || (static_cast<unsigned>(mask_[token / 8]) >> (token % 8) & 1u);
}

void TokenFile::verify() const {
  const auto check = [&](const char* section, const std::byte* begin, uint64_t num_bytes, uint32_t expected) {
    const uint32_t found = crc32c({begin, static_cast<size_t>(num_bytes)});
    if (found != expected)
      fail(path(), cat(section, ": checksum expected ", expected, ", found ", found, " (the file is damaged)"));
  };
  check("tokens", tokens_, num_tokens() * header_.token_bytes, header_.tokens_crc);
  check("document starts", documents_, num_documents() * 8, header_.documents_crc);
  if (mask_) check("loss mask", mask_, (num_tokens() + 7) / 8, header_.mask_crc);
  std::vector<int64_t> buffer(1 << 16);
  for (uint64_t i = 0; i < num_tokens(); i += buffer.size())
    read_tokens(i, std::span(buffer).first(std::min<uint64_t>(buffer.size(), num_tokens() - i)));
  for (uint64_t d = 1; d < num_documents(); ++d)
    if (document_start(d) <= document_start(d - 1))
      fail(path(), cat("document starts: document ", d, " starts at ", document_start(d), ", not after ",
                       document_start(d - 1)));
  if (document_start(num_documents() - 1) >= num_tokens())
    fail(path(), cat("document starts: the last is ", document_start(num_documents() - 1), " of ", num_tokens()));
}

}  // namespace satin::data
