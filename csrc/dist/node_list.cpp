#include "dist/node_list.h"

#include "core/error.h"

namespace satin::dist {

std::string first_host(const std::string& node_list) {
  // Every bracket group gives its first number: "rack[1-2]node[03,7]" starts with rack1node03.
  std::string host;
  for (size_t i = 0; i < node_list.size() && node_list[i] != ','; ++i) {
    if (node_list[i] != '[') {
      host += node_list[i];
      continue;
    }
    const size_t close = node_list.find(']', i), end = node_list.find_first_of("-,]", i + 1);
    if (close == std::string::npos || end == i + 1) {
      host.clear();
      break;
    }
    host += node_list.substr(i + 1, end - i - 1);
    i = close;
  }
  if (host.empty() || host.find_first_of("] \t\n") != std::string::npos)
    throw UserError(cat("SLURM_JOB_NODELIST: expected hosts such as gpu[003-005,9], found '", node_list,
                        "'; set MASTER_ADDR to the first host"));
  return host;
}

}  // namespace satin::dist
