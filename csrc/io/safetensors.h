// safetensors files by memory map. Layout: u64 little-endian header length, JSON {name: {dtype, shape, data_offsets}}, data.
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
  /// A view of the map (no copy; read-only; lives as long as any such tensor does). Throws UserError when absent.
  at::Tensor tensor(const std::string& name) const;

 private:
  std::shared_ptr<MappedFile> file_;
  size_t data_begin_ = 0;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// All tensors of a directory: model.safetensors, or the shards that model.safetensors.index.json names.
class TensorDirectory {
 public:
  explicit TensorDirectory(const std::filesystem::path& directory);
  bool contains(const std::string& name) const;
  at::Tensor tensor(const std::string& name) const;
  const TensorInfo& info(const std::string& name) const;
  std::vector<std::string> names() const;

 private:
  std::filesystem::path directory_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t> file_of_;
};

/// Writes one file, tensors in the order given, each contiguous (CUDA tensors are copied to the host one at a time).
/// Streams: memory beyond the largest tensor is not used. Complete or absent.
void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace satin::io
