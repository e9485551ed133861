// satin.json's writer (its reader is in checkpoint.h).
#pragma once
#include "io/checkpoint.h"

namespace satin::io {

/// Lists every file of `directory` with its size and checksum in satin.json, beside the rest of `manifest`, whose
/// `files` are taken as they are.
void write_manifest(const std::filesystem::path& directory, Manifest manifest);

}  // namespace satin::io
