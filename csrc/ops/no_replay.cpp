// Stands in for replay_cuda.cpp in a build without CUDA.
#include "ops/replay.h"

namespace satin::ops {

struct Replay::Graph {};

Replay::Replay(std::function<void()> work, at::Device device) : work_(std::move(work)), device_(device) {}
Replay::~Replay() = default;

void Replay::run() { work_(); }

}  // namespace satin::ops
