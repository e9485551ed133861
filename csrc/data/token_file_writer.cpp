#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "data/token_file.h"

namespace satin::data {
namespace fs = std::filesystem;

class TokenFileWriter::Section {
 public:
  Section(const fs::path& path, int flags) : path_(path), fd_(::open(path.c_str(), flags, 0644)) {
    if (fd_ < 0) fail("cannot create ");
    buffer_.reserve(kBufferBytes);
  }
  ~Section() { ::close(fd_); }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

  template <class T>
  void append(T value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    buffer_.insert(buffer_.end(), bytes, bytes + sizeof value);
    if (buffer_.size() >= kBufferBytes - sizeof(uint64_t)) flush();
  }
  void flush() {
    crc_ = crc32c(buffer_, crc_);
    write(buffer_);
    buffer_.clear();
  }
  /// Past the checksum and the buffer.
  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("cannot write ");
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  }
  /// Writes all of `other` (flushed) at the end of this file.
  void copy_from(Section& other) {
    std::vector<std::byte> block(kBufferBytes);
    other.seek(0);
    for (;;) {
      const ssize_t n = ::read(other.fd_, block.data(), block.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) other.fail("cannot read ");
      if (n == 0) return;
      write(std::span(block).first(static_cast<size_t>(n)));
    }
  }
  void seek(off_t offset) {
    if (::lseek(fd_, offset, SEEK_SET) < 0) fail("cannot seek in ");
  }
  uint32_t crc() const { return crc_; }

 private:
  static constexpr size_t kBufferBytes = 1 << 20;

  [[noreturn]] void fail(const char* what) const {
    throw UserError(cat(what, path_.string(), ": ", std::strerror(errno)));
  }

  fs::path path_;
  int fd_;
  std::vector<std::byte> buffer_;
  uint32_t crc_ = 0;
};

TokenFileWriter::TokenFileWriter(fs::path path, const Options& options) : path_(std::move(path)) {
  SATIN_CHECK(options.vocab_size > 0 && options.vocab_size <= (1ull << 31), options.vocab_size);
  header_.vocab_size = options.vocab_size;
  header_.tokenizer_fingerprint = options.tokenizer_fingerprint;
  header_.token_bytes = options.vocab_size <= 65536 ? 2 : 4;
  header_.flags = options.loss_mask ? TokenFileHeader::kFlagLossMask : 0;
  // The process id keeps two runs that fill one cache apart.
  const std::string suffix = cat(".", ::getpid(), ".partial");
  temporary_ = path_.string() + suffix;
  tokens_ = std::make_unique<Section>(temporary_, O_WRONLY | O_CREAT | O_TRUNC);
  try {
    tokens_->write(std::as_bytes(std::span(&header_, 1)));  // its place; filled in by finish()
    const auto scratch = [&](const char* name) {            // unlinked at once: nothing to clean up
      const fs::path side = path_.string() + suffix + name;
      auto section = std::make_unique<Section>(side, O_RDWR | O_CREAT | O_TRUNC);
      ::unlink(side.c_str());
      return section;
    };
    documents_ = scratch(".documents");
    if (options.loss_mask) mask_ = scratch(".mask");
  } catch (...) {
    ::unlink(temporary_.c_str());
    throw;
  }
}

TokenFileWriter::~TokenFileWriter() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void TokenFileWriter::add_document(std::span<const int32_t> ids, std::span<const uint8_t> scored) {
  SATIN_CHECK(!ids.empty());
  documents_->append(header_.num_tokens);
  ++header_.num_documents;
  extend_document(ids, scored);
}

void TokenFileWriter::extend_document(std::span<const int32_t> ids, std::span<const uint8_t> scored) {
  SATIN_CHECK(header_.num_documents > 0 && tokens_ && (scored.empty() || scored.size() == ids.size()));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || static_cast<uint64_t>(ids[i]) >= header_.vocab_size)
      throw UserError(cat(path_.string(), ": token id ", ids[i], " in document ", header_.num_documents - 1,
                          " is outside the vocabulary of ", header_.vocab_size));
    if (header_.token_bytes == 2)
      tokens_->append(static_cast<uint16_t>(ids[i]));
    else
      tokens_->append(static_cast<uint32_t>(ids[i]));
    const uint64_t bit = header_.num_tokens++ % 8;
    if (!mask_) continue;
    if (scored.empty() || scored[i]) mask_byte_ |= static_cast<uint8_t>(1u << bit);
    if (bit == 7) mask_->append(std::exchange(mask_byte_, uint8_t{0}));
  }
}

void TokenFileWriter::finish() {
  if (header_.num_tokens == 0) throw UserError(cat(path_.string(), ": there are no tokens to write"));
  tokens_->flush();
  header_.tokens_crc = tokens_->crc();
  const std::array<std::byte, 8> zeros{};
  tokens_->write(std::span(zeros).first((8 - header_.num_tokens * header_.token_bytes % 8) % 8));
  documents_->flush();
  header_.documents_crc = documents_->crc();
  tokens_->copy_from(*documents_);
  if (mask_) {
    if (header_.num_tokens % 8) mask_->append(mask_byte_);
    mask_->flush();
    header_.mask_crc = mask_->crc();
    tokens_->copy_from(*mask_);
  }
  header_.header_crc = crc32c(std::as_bytes(std::span(&header_, 1)));
  tokens_->seek(0);
  tokens_->write(std::as_bytes(std::span(&header_, 1)));
  tokens_.reset();
  sync_path(temporary_);
  std::error_code error;
  fs::rename(temporary_, path_, error);
  if (error) throw UserError(cat("cannot rename ", temporary_.string(), " to ", path_.string(), ": ", error.message()));
  temporary_.clear();
  sync_path(path_.parent_path().empty() ? "." : path_.parent_path());
}

}  // namespace satin::data
