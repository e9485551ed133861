// One rank's part of a checkpoint, and its way to the disk. A safetensors file's header follows from names, dtypes and
// full shapes, and rows of a row-major tensor are contiguous bytes: so ranks write into one file, each at its offsets,
// and the file has the same bytes whatever their number.
#pragma once
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "io/safetensors_layout.h"

namespace satin::io {

struct TensorFilePart {
  /// Contiguous elements that this rank writes.
  struct Run {
    at::Tensor elements;
    int64_t begin;  ///< byte of the file
  };
  std::string name;
  SafetensorsLayout layout;  ///< of the whole file
  std::vector<Run> runs;
};

struct CheckpointPart {
  Manifest manifest;
  std::string config_yaml;
  std::filesystem::path model_files;
  std::vector<TensorFilePart> files;
};

/// Agrees with the other ranks on who writes what; the runs are views of the contents' tensors. Collective. Throws
/// InternalError where ranks name different tensors, or rows are missing or overlap.
CheckpointPart part_of(const CheckpointContents& contents, dist::Communicator& ranks);

/// As save_checkpoint.
std::filesystem::path write_checkpoint(const std::filesystem::path& run_directory, CheckpointPart part, int64_t keep,
                                       dist::Communicator& ranks);

}  // namespace satin::io
