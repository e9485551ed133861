// Several processes of this program on this host, one a GPU: what torchrun does, without it.
#pragma once
#include <cstdint>

namespace satin::dist {

/// Whether this process was started by spawn().
bool is_spawned();

/// Starts `count` copies of this program with its arguments, as ranks of a job, and waits for them. SIGTERM and SIGINT
/// are passed on. When one ends with an error the others get SIGTERM soon after, and SIGKILL 5 s later. They do not
/// outlive this process. Returns the exit status of the rank that failed first (128 + signal when one ended it), or 0.
int spawn(int64_t count);

}  // namespace satin::dist
