// Times work on a device without what surrounds it: on CUDA a graph of many calls is replayed, so that launches from
// the host cost nothing; calls rotate over copies of their data, so that nothing waits in a cache.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "bench/measurement.h"

namespace satin::bench {

/// Copies that hold at least this much are beyond every cache.
constexpr double kBytesBeyondCaches = 120e6;

/// So many copies of `bytes` each are; on the CPU one, which is as large as a layer's.
size_t copies_beyond_caches(at::Device device, double bytes);

/// Runs call number i (on copy i % num_copies) and returns what it made, which stays alive for num_copies calls.
using Call = std::function<std::vector<at::Tensor>(int i)>;

/// Median, least and most of single times in microseconds (at least one).
Measurement summarise(std::vector<double> times);

/// Median, least and most time of one call. CUDA: replays of a graph of 20 calls or one for each copy, whichever is
/// more; of 5 when a call takes over 2 ms. CPU: single calls. `name` and the floor are left to the caller.
Measurement time_calls(at::Device device, int num_copies, const Call& call);

/// Bytes a second of a plain copy of 1 GiB (CPU: 256 MiB), read plus written: the better of the runtime and a kernel.
double copy_bandwidth(at::Device device);

/// CUDA's part of time_calls; throws UserError in a build without it.
std::vector<double> time_cuda_graph(at::Device device, int num_copies, const Call& call);

}  // namespace satin::bench
