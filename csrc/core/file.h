// Files: memory maps, and writes that are complete or absent.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "core/crc32c.h"

namespace satin {

/// Whole file as bytes. Throws UserError naming the path and the system's reason.
std::string read_file(const std::filesystem::path& path);

/// Writes a temporary file beside `path`, syncs it and renames it over `path`. On any failure (a full disk, say) the
/// temporary is removed, an earlier `path` stays as it was, and UserError is thrown.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

/// A read-only memory map of a whole file. Throws UserError when the file cannot be opened or mapped.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }
  /// Whole pages within these bytes leave the process's memory until they are next read.
  void release(size_t begin, size_t size) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// A directory that appears whole or not at all: fill path(), then commit(). Without commit the destructor removes it.
/// The temporary is a sibling of the target named ".<name>.partial", left over ones are removed first.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(std::filesystem::path target);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::filesystem::path& path() const { return temporary_; }
  /// Syncs every file, then renames over the target (an existing target is exchanged, then removed).
  void commit();

 private:
  std::filesystem::path target_, temporary_;
  bool committed_ = false;
};

/// fsync of a file or directory. Throws UserError.
void sync_path(const std::filesystem::path& path);

}  // namespace satin
