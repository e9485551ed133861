// safetensors files by memory map. Layout: u64 little-endian header length, JSON {name: {dtype, shape, data_offsets}},
// data.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/file.h"

namespace satin::io {

struct TensorInfo {
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  size_t begin, end;  ///< bytes in the file's data section
};

/// One file. Every offset is checked against the file before use: throws UserError naming the file and the tensor.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const;
  /// A view of the map: no copy, read-only (writing ends the process), alive as long as any such tensor is; with the
  /// last one its pages leave this process's memory. A copy where the file has it unaligned. Throws UserError when
  /// absent.
  at::Tensor tensor(const std::string& name) const;
  /// As tensor(), of rows [first, first + count) alone: no other byte is read. Throws UserError also where the tensor
  /// has not so many.
  at::Tensor rows(const std::string& name, int64_t first, int64_t count) const;

 private:
  const TensorInfo& info(const std::string& name) const;
  /// Of what lies from byte `begin` of the data section on.
  at::Tensor view(size_t begin, at::IntArrayRef shape, at::ScalarType dtype) const;
  std::shared_ptr<MappedFile> file_;
  size_t data_begin_ = 0;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// All tensors of a directory: model.safetensors, or else the shards that model.safetensors.index.json names.
/// Index and shards must agree tensor by tensor: throws UserError with all disagreements.
class TensorDirectory {
 public:
  explicit TensorDirectory(const std::filesystem::path& directory);
  bool contains(const std::string& name) const;
  at::Tensor tensor(const std::string& name) const;
  at::Tensor rows(const std::string& name, int64_t first, int64_t count) const;
  const TensorInfo& info(const std::string& name) const;
  std::vector<std::string> names() const;
  const std::filesystem::path& path() const { return directory_; }

 private:
  const SafetensorsFile& file(const std::string& name) const;
  std::filesystem::path directory_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t> file_of_;
};

/// "F32", "BF16", ...
std::string safetensors_dtype(at::ScalarType type);

/// Writes one file as SafetensorsFileWriter does; tensors of any stride and device, copied to the host one at a time:
/// memory beyond the largest tensor is not used. Complete or absent. Throws UserError when it cannot be written.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace satin::io
