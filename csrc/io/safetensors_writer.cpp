#include "io/safetensors_writer.h"

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "io/safetensors.h"

namespace satin::io {
namespace fs = std::filesystem;

SafetensorsFileWriter::SafetensorsFileWriter(const fs::path& path, const std::vector<TensorSpec>& specs,
                                             const std::map<std::string, std::string>& metadata)
    : layout_(specs, metadata), file_(path) {
  file_.reserve(layout_.size_bytes());
  file_.write_at(0, std::as_bytes(std::span(layout_.header())));
}

void SafetensorsFileWriter::write(const std::string& name, const at::Tensor& value) {
  const SafetensorsLayout::Place& place = layout_.places().at(name);
  SATIN_CHECK(value.scalar_type() == place.spec.dtype && value.sizes() == place.spec.shape, name, ": announced as ",
              at::toString(place.spec.dtype), " ", at::IntArrayRef(place.spec.shape), ", made as ",
              at::toString(value.scalar_type()), " ", value.sizes());
  const at::Tensor host = value.detach().to(at::kCPU).contiguous();
  file_.write_at(place.begin, {static_cast<const std::byte*>(host.const_data_ptr()), host.nbytes()});
  ++num_written_;
}

void SafetensorsFileWriter::check_complete() const {
  SATIN_CHECK_EQ(num_written_.load(), layout_.places().size(), "tensors written");
}

void SafetensorsFileWriter::commit() {
  check_complete();
  file_.commit();
}

SafetensorsWriter::SafetensorsWriter(const fs::path& directory, const std::vector<TensorSpec>& specs,
                                     int64_t shard_bytes)
    : directory_(directory) {
  std::vector<std::vector<TensorSpec>> shards(1);
  int64_t shard = 0;
  for (const TensorSpec& spec : specs) {
    const int64_t size = spec.size_bytes();
    if (!shards.back().empty() && shard + size > shard_bytes) {
      shards.emplace_back();
      shard = 0;
    }
    shard += size;
    total_bytes_ += size;
    shards.back().push_back(spec);
  }
  const auto padded = [](size_t number) {
    const std::string digits = cat(number);
    return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
  };
  for (size_t i = 0; i < shards.size(); ++i) {
    file_names_.push_back(shards.size() == 1
                              ? "model.safetensors"
                              : cat("model-", padded(i + 1), "-of-", padded(shards.size()), ".safetensors"));
    files_.emplace_back(directory / file_names_.back(), shards[i]);
    for (const TensorSpec& spec : shards[i])
      SATIN_CHECK(file_of_.emplace(spec.name, i).second, "tensor ", spec.name, " given twice");
  }
}

void SafetensorsWriter::write(const std::string& name, const at::Tensor& value) {
  files_[file_of_.at(name)].write(name, value);
}

void SafetensorsWriter::commit() {
  for (const auto& file : files_) file.check_complete();
  for (auto& file : files_) file.commit();
  if (files_.size() == 1) return;
  nlohmann::json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", nlohmann::json::object()}};
  for (const auto& [name, file] : file_of_) index["weight_map"][name] = file_names_[file];
  write_file_atomically(directory_ / "model.safetensors.index.json", index.dump(2) + "\n");
}

void write_safetensors(const fs::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, value] : tensors) specs.push_back({name, value.scalar_type(), value.sizes().vec()});
  SafetensorsFileWriter file(path, specs, metadata);
  for (const auto& [name, value] : tensors) file.write(name, value);
  file.commit();
}

}  // namespace satin::io
