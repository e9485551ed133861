// What this program was built from, and what the machine has.
#pragma once
#include <string>

namespace satin::cli {

/// "satin 0.1.0 (torch 2.11.0, CUDA 13.0)".
std::string version_text();

}  // namespace satin::cli
