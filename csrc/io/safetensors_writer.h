// Writing safetensors piece by piece: all names, dtypes and shapes first, then tensors in any order, from any thread.
#pragma once
#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/atomic_file.h"
#include "io/safetensors_layout.h"

namespace satin::io {

/// One file, laid out as SafetensorsLayout says. Its space is reserved at once, where the file system can. Complete or
/// absent. Errors: UserError when it cannot be written.
class SafetensorsFileWriter {
 public:
  SafetensorsFileWriter(const std::filesystem::path& path, const std::vector<TensorSpec>& specs,
                        const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  /// Of any stride and device. From several threads at once, each tensor once.
  void write(const std::string& name, const at::Tensor& value);
  /// Every tensor must have been written.
  void check_complete() const;
  void commit();

 private:
  SafetensorsLayout layout_;
  AtomicFile file_;
  std::atomic<size_t> num_written_ = 0;
};

/// Hugging Face's size of a shard.
constexpr int64_t kShardBytes = 5'000'000'000;

/// model.safetensors of a directory; or, when its tensors have more than `shard_bytes`, shards of at most so many (and
/// at least one tensor each, in the order given): model-00001-of-0000n.safetensors, with
/// model.safetensors.index.json. Otherwise as SafetensorsFileWriter.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& directory, const std::vector<TensorSpec>& specs,
                    int64_t shard_bytes = kShardBytes);
  void write(const std::string& name, const at::Tensor& value);
  void commit();

 private:
  std::filesystem::path directory_;
  int64_t total_bytes_ = 0;
  std::deque<SafetensorsFileWriter> files_;
  std::vector<std::string> file_names_;
  std::map<std::string, size_t> file_of_;
};

}  // namespace satin::io
