// Checkpoints of a run: checkpoints/step-N/, complete or absent, and `checkpoints/latest`, which names the newest.
// A checkpoint is also a model directory:
//   model.safetensors       masters (fp32), scales and zero points, by parameter name
//   optimizer.safetensors   the optimizer's state
//   config.yaml             the run's resolved config
//   config.json, tokenizer  as of the model that training started from
//   satin.json              the manifest: where training stands, each module's scheme, each file's size and CRC-32C
// Its bytes do not depend on how many ranks wrote it, nor on how they share the model: any number of them resumes.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "quant/scheme.h"

namespace satin::io {

struct CheckpointFile {
  uint64_t size_bytes = 0;
  uint32_t crc32c = 0;
};

/// satin.json.
struct Manifest {
  int64_t step = 0;
  int64_t tokens = 0;                            ///< seen in training so far
  nlohmann::json state;                          ///< the trainer's own: data position, best loss, ...
  std::map<std::string, quant::Scheme> schemes;  ///< by module name; empty for dense training
  std::string kv_cache = "none";                 ///< as quantization.kv_cache
  bool quantizing = true;  ///< false: training has not begun to quantize, the weights are those of a dense model
  std::map<std::string, CheckpointFile> files;  ///< every other file of the directory
};

/// A tensor, or this rank's rows of it.
struct CheckpointTensor {
  std::string name;
  at::Tensor tensor;
  std::vector<int64_t> full_shape = {};  ///< of the tensor whose rows these are; empty: it is whole
  int64_t first_row = 0;
};

/// What save_checkpoint writes. `manifest.files` is filled there. Every rank names the same tensors in the same order;
/// what is not a tensor is rank 0's.
struct CheckpointContents {
  Manifest manifest;
  std::vector<CheckpointTensor> model, optimizer;
  std::string config_yaml;
  std::filesystem::path model_files;  ///< a directory with config.json and the tokenizer's files
};

/// Writes checkpoints/step-N of `run_directory` (replacing one of the same step), names it in `latest`, and only then
/// removes all but the `keep` newest and what interrupted saves left. Returns its directory.
/// Several ranks call it together: each writes its own rows, and ranks that hold the same rows (all of a replicated
/// tensor) share them. Rows must cover every tensor (InternalError). Host memory: 16 MiB for tensors on other devices.
/// Errors: UserError, on every rank, when it cannot be written on any (full disk, read-only directory, a directory that
/// ranks do not share); nothing is left of it and every earlier checkpoint is intact then.
std::filesystem::path save_checkpoint(const std::filesystem::path& run_directory, const CheckpointContents& contents,
                                      int64_t keep, dist::Communicator& ranks = *dist::Communicator::alone());

/// The one that `latest` names, or the highest step when `latest` is absent or names none; nullopt when there is none.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& run_directory);

/// Removes all but the newest `keep` (the one that `latest` names is always kept).
void prune_checkpoints(const std::filesystem::path& run_directory, int64_t keep);

/// Whether the directory has a satin.json.
bool is_checkpoint(const std::filesystem::path& directory);

/// Reads and checks satin.json itself (not the files it lists). Throws UserError.
Manifest read_manifest(const std::filesystem::path& directory);

/// As read_manifest, and checks that every listed file has its size and checksum: UserError naming each one that has
/// not. `unread`: a file that the caller will not read and that need not be there. Several ranks call it together, and
/// each reads a share.
Manifest verify_checkpoint(const std::filesystem::path& directory, const std::string& unread = "",
                           dist::Communicator& ranks = *dist::Communicator::alone());

}  // namespace satin::io
