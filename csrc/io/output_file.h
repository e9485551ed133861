// A file that is written piece by piece, in any order, by several threads or processes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace satin::io {

/// Errors: UserError with the system's reason (a full disk, say) and `shown`, the path that the user knows.
class OutputFile {
 public:
  enum class Mode { kCreate, kExisting };  ///< empty; as it is
  OutputFile(const std::filesystem::path& path, Mode mode, std::filesystem::path shown);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;

  /// From a byte of the file on; from several threads at once.
  void write_at(int64_t offset, std::span<const std::byte> bytes);
  /// Takes the space of a file of `size_bytes` now, so that a full disk is known before the work is done. (Nothing
  /// where the file system cannot.)
  void reserve(int64_t size_bytes);
  /// Waits until what was written is on the disk.
  void sync();
  void close();

  /// Throws UserError of errno: "cannot <action> <shown>: ...".
  [[noreturn]] void fail(const char* action) const;

 private:
  std::filesystem::path shown_;
  int descriptor_ = -1;
};

}  // namespace satin::io
