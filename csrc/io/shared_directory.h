// What ranks do with files that all of them see.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "io/checkpoint.h"

namespace satin::io {

/// Throws UserError, on every rank, when a rank does not see what rank 0 writes into `directory` (which exists on rank
/// 0): it is not on a shared file system. `key`: what to set to another place. Collective.
void check_shared(const std::filesystem::path& directory, dist::Communicator& ranks,
                  const std::string& key = "train.output_dir");

/// Size and CRC-32C of each file; every rank reads a share of each. Collective; errors on any rank are thrown on all.
std::vector<CheckpointFile> checksums(const std::vector<std::filesystem::path>& files, dist::Communicator& ranks);

}  // namespace satin::io
