#include "core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <utility>

#include "core/error.h"

namespace satin {
namespace fs = std::filesystem;
namespace {

std::string reason() { return std::strerror(errno); }

/// A file descriptor that closes itself.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

std::string read_file(const fs::path& path) {
  if (fs::is_directory(path)) throw UserError(cat("expected a file, found a directory: ", path.string()));
  std::ifstream in(path, std::ios::binary);
  if (!in) throw UserError(cat("cannot open ", path.string(), ": ", reason()));
  std::ostringstream out;
  out << in.rdbuf();
  if (in.bad()) throw UserError(cat("cannot read ", path.string(), ": ", reason()));
  return std::move(out).str();
}

void sync_path(const fs::path& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY)};
  if (file.fd < 0 || ::fsync(file.fd) != 0) throw UserError(cat("cannot sync ", path.string(), ": ", reason()));
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  fs::path temporary = path;
  temporary += ".partial";
  try {
    Descriptor file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644)};
    if (file.fd < 0) throw UserError(cat("cannot create ", temporary.string(), ": ", reason()));
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t n = ::write(file.fd, bytes.data() + done, bytes.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw UserError(cat("cannot write ", path.string(), ": ", reason()));
      done += static_cast<size_t>(n);
    }
    if (::fsync(file.fd) != 0) throw UserError(cat("cannot sync ", path.string(), ": ", reason()));
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      throw UserError(cat("cannot rename ", temporary.string(), " to ", path.string(), ": ", reason()));
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  Descriptor file{::open(path.c_str(), O_RDONLY)};
  struct stat info {};
  if (file.fd < 0 || ::fstat(file.fd, &info) != 0) throw UserError(cat("cannot open ", path.string(), ": ", reason()));
  if (!S_ISREG(info.st_mode)) throw UserError(cat("expected a regular file: ", path.string()));
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;  // mmap refuses empty files
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (address == MAP_FAILED) throw UserError(cat("cannot map ", path.string(), ": ", reason()));
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::release(size_t begin, size_t size) const {
  static const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t first = (begin + page - 1) / page * page, last = (begin + size) / page * page;
  if (first < last) ::madvise(const_cast<std::byte*>(data_) + first, last - first, MADV_DONTNEED);
}

AtomicDirectory::AtomicDirectory(fs::path target) : target_(std::move(target)) {
  while (!target_.has_filename() && target_.has_parent_path()) target_ = target_.parent_path();  // a trailing slash
  temporary_ = target_.parent_path() / ("." + target_.filename().string() + ".partial");
  std::error_code error;
  fs::remove_all(temporary_, error);
  fs::create_directories(temporary_, error);
  if (error) throw UserError(cat("cannot create ", temporary_.string(), ": ", error.message()));
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) sync_path(entry.path());
  sync_path(temporary_);
  const fs::path parent = target_.parent_path().empty() ? "." : target_.parent_path();
  const fs::path replaced = parent / ("." + target_.filename().string() + ".replaced");
  std::error_code error;
  const bool replaces = fs::exists(target_);
  if (replaces && ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
    committed_ = true;
    sync_path(parent);
    fs::remove_all(temporary_, error);  // the old one
    return;
  }
  if (replaces) {  // a file system that cannot exchange: for a moment neither is there
    fs::remove_all(replaced, error);
    fs::rename(target_, replaced, error);
    if (error) throw UserError(cat("cannot replace ", target_.string(), ": ", error.message()));
  }
  fs::rename(temporary_, target_, error);
  if (error) {
    std::error_code ignored;
    if (replaces) fs::rename(replaced, target_, ignored);
    throw UserError(cat("cannot rename ", temporary_.string(), " to ", target_.string(), ": ", error.message()));
  }
  committed_ = true;
  sync_path(parent);
  if (replaces) fs::remove_all(replaced, error);
}

}  // namespace satin
