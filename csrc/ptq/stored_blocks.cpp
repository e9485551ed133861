#include "ptq/stored_blocks.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "config/unchanged.h"
#include "core/error.h"
#include "core/file.h"
#include "io/safetensors.h"

namespace satin::ptq {
namespace fs = std::filesystem;
namespace {

constexpr const char* kAtInput = "stream.at_input";
constexpr const char* kAtOutput = "stream.at_output";

}  // namespace

StoredBlocks::StoredBlocks(const fs::path& directory, const std::string& of) : directory_(directory) {
  const fs::path config = directory_ / "config.yaml";
  config::check_unchanged(config, of, directory_);
  if (fs::exists(config)) return;
  fs::create_directories(directory_);
  write_file_atomically(config, of);
}

fs::path StoredBlocks::block_path(int64_t block) const { return directory_ / cat("block-", block, ".safetensors"); }
fs::path StoredBlocks::gradients_path(int64_t block) const {
  return directory_ / cat("gradients-", block, ".safetensors");
}

bool StoredBlocks::has_block(int64_t block) const { return fs::exists(block_path(block)); }

int64_t StoredBlocks::num_finished() const {
  int64_t count = 0;
  while (has_block(count)) ++count;
  return count;
}

void StoredBlocks::load_block(int64_t block, models::Decoder& decoder) const {
  const at::NoGradGuard no_grad;
  const io::SafetensorsFile file(block_path(block));
  for (const nn::Parameter& parameter : decoder.parameters().all())
    if (nn::block_of(parameter.name) == block) at::Tensor(parameter.value).copy_(file.tensor(parameter.name));
}

void StoredBlocks::save_block(int64_t block, const models::Decoder& decoder) const {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const nn::Parameter& parameter : decoder.parameters().all())
    if (nn::block_of(parameter.name) == block) tensors.emplace_back(parameter.name, parameter.value.detach());
  io::write_safetensors(block_path(block), tensors);
}

bool StoredBlocks::has_gradients(int64_t num_blocks) const {
  for (int64_t block = 0; block < num_blocks; ++block)
    if (!fs::exists(gradients_path(block))) return false;
  return true;
}

BlockGradients StoredBlocks::load_gradients(int64_t block) const {
  const io::SafetensorsFile file(gradients_path(block));
  BlockGradients found;
  for (const auto& [name, info] : file.tensors()) {
    const at::Tensor value = file.tensor(name).clone();
    if (name == kAtInput)
      found.at_input = value;
    else if (name == kAtOutput)
      found.at_output = value;
    else
      found.moments[name] = value;
  }
  return found;
}

void StoredBlocks::save_gradients(int64_t block, const BlockGradients& gradients) const {
  std::vector<std::pair<std::string, at::Tensor>> tensors(gradients.moments.begin(), gradients.moments.end());
  if (gradients.at_input.defined()) {
    tensors.emplace_back(kAtInput, gradients.at_input);
    tensors.emplace_back(kAtOutput, gradients.at_output);
  }
  io::write_safetensors(gradients_path(block), tensors);
}

void StoredBlocks::remove() const {
  std::error_code ignored;
  fs::remove_all(directory_, ignored);
}

}  // namespace satin::ptq
