// A file written piece by piece, in any order, that appears whole or not at all.
#pragma once
#include <filesystem>

#include "io/output_file.h"

namespace satin::io {

/// Writes to "<path>.partial"; commit() syncs it and renames it over `path`. Without commit the destructor removes the
/// temporary and an earlier `path` stays as it was. Errors: UserError with the system's reason (a full disk, say).
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// As those of OutputFile.
  void write_at(int64_t offset, std::span<const std::byte> bytes) { file_.write_at(offset, bytes); }
  void reserve(int64_t size_bytes) { file_.reserve(size_bytes); }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  OutputFile file_;
  bool committed_ = false;
};

}  // namespace satin::io
