// A file written piece by piece, in any order, that appears whole or not at all.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace satin::io {

/// Writes to "<path>.partial"; commit() syncs it and renames it over `path`. Without commit the destructor removes the
/// temporary and an earlier `path` stays as it was. Errors: UserError with the system's reason (a full disk, say).
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// From a byte of the file on; from several threads at once.
  void write_at(int64_t offset, std::span<const std::byte> bytes);
  /// Takes the space of a file of `size_bytes` now, so that a full disk is known before the work is done. (Nothing
  /// where the file system cannot.)
  void reserve(int64_t size_bytes);
  void commit();

 private:
  [[noreturn]] void fail(const char* action) const;
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

}  // namespace satin::io
