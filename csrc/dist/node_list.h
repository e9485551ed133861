// Slurm's compressed lists of hosts.
#pragma once
#include <string>

namespace satin::dist {

/// "gpu[003-005,9],login" -> "gpu003". Throws UserError when it is not such a list.
std::string first_host(const std::string& node_list);

}  // namespace satin::dist
