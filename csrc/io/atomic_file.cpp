#include "io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/file.h"

namespace satin::io {
namespace {
constexpr size_t kMaxPiece = size_t{1} << 30;  // Linux writes at most 2 GiB a call
}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)), temporary_(path_) {
  temporary_ += ".partial";
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail("create");
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(descriptor_, bytes.data(), std::min(bytes.size(), kMaxPiece), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("write");
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
}

void AtomicFile::reserve(int64_t size_bytes) {
  if (::fallocate(descriptor_, 0, 0, size_bytes) != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
    fail("write");
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail("sync");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("replace");
  ::close(std::exchange(descriptor_, -1));
  sync_path(path_.has_parent_path() ? path_.parent_path() : ".");
}

void AtomicFile::fail(const char* action) const {
  const int error = errno;
  const char* hint = error == ENOSPC || error == EDQUOT ? ": free some space or choose another output directory"
                     : error == EACCES || error == EROFS || error == EPERM
                         ? ": choose a directory that you may write to"
                         : "";
  throw UserError(cat("cannot ", action, " ", path_.string(), ": ", std::strerror(error), hint));
}

}  // namespace satin::io
