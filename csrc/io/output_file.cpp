#include "io/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace satin::io {
namespace {
constexpr size_t kMaxPiece = size_t{1} << 30;  // Linux writes at most 2 GiB a call
}  // namespace

OutputFile::OutputFile(const std::filesystem::path& path, Mode mode, std::filesystem::path shown)
    : shown_(std::move(shown)) {
  const int create = mode == Mode::kCreate ? O_CREAT | O_TRUNC : 0;
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | create, 0644);
  if (descriptor_ < 0) fail(mode == Mode::kCreate ? "create" : "open");
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : shown_(std::move(other.shown_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

void OutputFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(descriptor_, bytes.data(), std::min(bytes.size(), kMaxPiece), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("write");
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
}

void OutputFile::reserve(int64_t size_bytes) {
  if (::fallocate(descriptor_, 0, 0, size_bytes) != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
    fail("write");
}

void OutputFile::sync() {
  if (::fsync(descriptor_) != 0) fail("sync");
}

void OutputFile::close() {
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("close");
}

void OutputFile::fail(const char* action) const {
  const int error = errno;
  const char* hint = error == ENOSPC || error == EDQUOT ? ": free some space or choose another output directory"
                     : error == EACCES || error == EROFS || error == EPERM
                         ? ": choose a directory that you may write to"
                         : "";
  throw UserError(cat("cannot ", action, " ", shown_.string(), ": ", std::strerror(error), hint));
}

}  // namespace satin::io
