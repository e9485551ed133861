#include <set>

#include "core/error.h"
#include "core/nearest.h"
#include "io/json_file.h"
#include "io/problems.h"
#include "io/safetensors.h"

namespace satin::io {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::map<std::string, std::string> read_weight_map(const fs::path& index) {
  const nlohmann::json json = load_json_object(index);
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object())
    throw UserError(cat(index.string(), ": expected an object named weight_map"));
  std::map<std::string, std::string> shard_of;
  for (const auto& [name, shard] : map->items()) {
    if (!shard.is_string())
      throw UserError(
          cat(index.string(), ": weight_map: expected a file name for ", name, ", found ", shard.type_name()));
    const auto& file = shard.get_ref<const std::string&>();
    // The index may come from a stranger: it names files of its own directory and nothing else.
    if (file.empty() || file == "." || file.find("..") != file.npos ||
        file.find_first_of(std::string_view("/\\\0", 3)) != file.npos)
      throw UserError(
          cat(index.string(), ": weight_map: expected a plain file name for ", name, ", found ", shard.dump()));
    shard_of[name] = file;
  }
  return shard_of;
}

}  // namespace

TensorDirectory::TensorDirectory(const fs::path& directory) : directory_(directory) {
  if (!fs::is_directory(directory))
    throw UserError(cat("expected a model directory, found none at ", directory.string()));
  if (fs::exists(directory / kSingle)) {
    files_.emplace_back(directory / kSingle);
    for (const auto& tensor : files_[0].tensors()) file_of_[tensor.first] = 0;
    return;
  }
  if (!fs::exists(directory / kIndex)) {
    const bool pickled =
        fs::exists(directory / "pytorch_model.bin") || fs::exists(directory / "pytorch_model.bin.index.json");
    throw UserError(
        cat(directory.string(), ": expected ", kSingle, " or ", kIndex, ", found neither",
            pickled ? "; pytorch_model.bin is not read: convert it with transformers' save_pretrained" : ""));
  }
  const auto shard_of = read_weight_map(directory / kIndex);
  std::set<std::string> shards, missing;
  for (const auto& entry : shard_of) shards.insert(entry.second);
  std::vector<std::string> problems;
  for (const auto& shard : shards) {
    std::error_code ignored;  // a name that is too long, say
    if (!fs::exists(directory / shard, ignored)) {
      problems.push_back("shard " + shard + " does not exist");
      missing.insert(shard);
      continue;
    }
    files_.emplace_back(directory / shard);
    for (const auto& tensor : files_.back().tensors()) {
      const std::string& name = tensor.first;
      const auto indexed = shard_of.find(name);
      if (indexed == shard_of.end())
        problems.push_back(cat("tensor ", name, " is in ", shard, " but not in the index"));
      else if (indexed->second != shard)
        problems.push_back(cat("tensor ", name, " is in ", shard, ", the index says ", indexed->second));
      file_of_[name] = files_.size() - 1;
    }
  }
  for (const auto& [name, shard] : shard_of)
    if (!file_of_.contains(name) && !missing.contains(shard))
      problems.push_back(cat("tensor ", name, " is in the index but not in ", shard));
  if (!problems.empty()) throw_problems((directory / kIndex).string() + " and its shards disagree", problems);
}

bool TensorDirectory::contains(const std::string& name) const { return file_of_.contains(name); }

const SafetensorsFile& TensorDirectory::file(const std::string& name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end())
    throw UserError(cat(directory_.string(), ": no tensor named ", name, did_you_mean(name, names())));
  return files_[found->second];
}

at::Tensor TensorDirectory::tensor(const std::string& name) const { return file(name).tensor(name); }

at::Tensor TensorDirectory::rows(const std::string& name, int64_t first, int64_t count) const {
  return file(name).rows(name, first, count);
}

const TensorInfo& TensorDirectory::info(const std::string& name) const { return file(name).tensors().at(name); }

std::vector<std::string> TensorDirectory::names() const {
  std::vector<std::string> names;
  for (const auto& entry : file_of_) names.push_back(entry.first);
  return names;
}

}  // namespace satin::io
