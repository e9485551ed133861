// What a run has finished, on the disk: a killed `satin quantize` goes on after the last whole block, to the same bits.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "ptq/gradient_pass.h"

namespace satin::ptq {

/// A folder with block-N.safetensors (every parameter of a finished block) and gradients-N.safetensors; files are
/// complete or absent.
class StoredBlocks {
 public:
  /// Makes the folder where it is absent. `of`: what the results depend on (the resolved configuration); a folder with
  /// results of something else is refused (UserError with the first line that differs).
  StoredBlocks(const std::filesystem::path& directory, const std::string& of);

  bool has_block(int64_t block) const;
  /// Blocks 0 ... n - 1 are finished.
  int64_t num_finished() const;
  void load_block(int64_t block, models::Decoder& decoder) const;
  void save_block(int64_t block, const models::Decoder& decoder) const;

  /// Whether those of blocks 0 ... num_blocks - 1 are all there.
  bool has_gradients(int64_t num_blocks) const;
  BlockGradients load_gradients(int64_t block) const;
  void save_gradients(int64_t block, const BlockGradients& gradients) const;

  void remove() const;

 private:
  std::filesystem::path block_path(int64_t block) const;
  std::filesystem::path gradients_path(int64_t block) const;
  std::filesystem::path directory_;
};

}  // namespace satin::ptq
