// Before a job begins: all ranks have the same program, configuration and data.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "dist/communicator.h"

namespace satin::dist {

/// Called by every rank with the same names: what must be equal (a whole text, or a checksum). Throws UserError on
/// every rank, naming the first rank that differs from rank 0, its host and the first line that differs, on both sides.
void check_agreement(Communicator& group, const std::string& host, const std::map<std::string, std::string>& facts);

/// "1234 bytes, checksum 89abcdef", or "absent". Of a file above 64 MiB, 64 pieces spread over it are read: enough to
/// tell another file or a half copied one, not to tell every changed byte.
std::string file_fact(const std::filesystem::path& path);

}  // namespace satin::dist
