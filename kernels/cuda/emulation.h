// Runs the kernels of this folder on the CPU, so that their indexing, sums and rounding are tested where there is no
// GPU: a test includes a .cu file as C++, and this header stands in for CUDA's. A block's threads are fibers that take
// turns at barriers and shuffles; blocks run one after the other. Slow, and silent about races: for those there is
// compute-sanitizer.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static
using std::exp;
using std::fma;
using std::sqrt;

struct EmulatedIndex {
  unsigned x;
};
inline EmulatedIndex blockIdx, threadIdx;

struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }

namespace satin::kernels::emulation {

constexpr unsigned kMaxThreads = 1024;
constexpr size_t kStackBytes = 64 << 10;

/// The fibers of one block.
class Block {
 public:
  Block(unsigned num_threads, std::function<void()> body) : body_(std::move(body)), fibers_(num_threads) {
    for (Fiber& fiber : fibers_) fiber.stack = std::make_unique<char[]>(kStackBytes);
  }

  void run() {
    current() = this;
    const auto num_threads = static_cast<unsigned>(fibers_.size());
    block_ = {num_threads, 0, 0};
    warps_.assign((num_threads + 31) / 32, {});
    for (unsigned i = 0; i < num_threads; ++i) ++warps_[i / 32].running;
    for (Fiber& fiber : fibers_) {
      fiber.done = false;
      fiber.waits_for = nullptr;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStackBytes;
      fiber.context.uc_link = &scheduler_;
      makecontext(&fiber.context, enter, 0);
    }
    for (bool some = true; some;) {  // each round takes every fiber to its next wait, or to its end
      some = false;
      for (index_ = 0; index_ < fibers_.size(); ++index_) {
        const Fiber& fiber = fibers_[index_];
        if (fiber.done) continue;
        some = true;
        if (fiber.waits_for && fiber.waits_for->generation == fiber.generation) continue;
        threadIdx.x = static_cast<unsigned>(index_);
        swapcontext(&scheduler_, &fibers_[index_].context);
      }
    }
  }
  size_t size() const { return fibers_.size(); }
  /// Waits for the threads of the block, or of the thread's warp, that have not ended.
  void sync_block() { sync(block_); }
  void sync_warp() { sync(warps_[index_ / 32]); }

  static Block*& current() {
    static Block* block = nullptr;
    return block;
  }

 private:
  struct Barrier {
    unsigned running = 0, arrived = 0, generation = 0;
    void open_when_full() {
      if (arrived < running) return;
      arrived = 0;
      ++generation;
    }
  };
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool done;
    const Barrier* waits_for;
    unsigned generation;  ///< of what it waits for
  };
  static void enter() {
    Block& block = *current();
    block.body_();
    block.fibers_[block.index_].done = true;
    for (Barrier* barrier : {&block.block_, &block.warps_[block.index_ / 32]}) {
      --barrier->running;
      barrier->open_when_full();
    }
  }
  void sync(Barrier& barrier) {
    const unsigned generation = barrier.generation;
    ++barrier.arrived;
    barrier.open_when_full();
    if (barrier.generation != generation) return;
    Fiber& fiber = fibers_[index_];
    fiber.waits_for = &barrier;
    fiber.generation = generation;
    swapcontext(&fiber.context, &scheduler_);
    fiber.waits_for = nullptr;
  }

  std::function<void()> body_;
  std::vector<Fiber> fibers_;
  ucontext_t scheduler_;
  size_t index_ = 0;
  Barrier block_;
  std::vector<Barrier> warps_;
};

}  // namespace satin::kernels::emulation

inline void __syncthreads() { satin::kernels::emulation::Block::current()->sync_block(); }
inline void __syncwarp() { satin::kernels::emulation::Block::current()->sync_warp(); }

inline unsigned atomicOr(unsigned* at, unsigned bits) { return std::exchange(*at, *at | bits); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline unsigned __ballot_sync(unsigned, bool vote) {
  static bool votes[satin::kernels::emulation::kMaxThreads];
  votes[threadIdx.x] = vote;
  __syncwarp();
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; ++lane) result |= unsigned{votes[threadIdx.x / 32 * 32 + lane]} << lane;
  __syncwarp();
  return result;
}
/// Blocks here have kThreads threads, all of which take part.
inline int __syncthreads_or(bool vote) {
  static bool votes[satin::kernels::emulation::kMaxThreads];
  votes[threadIdx.x] = vote;
  __syncthreads();
  bool result = false;
  for (size_t i = 0; i < satin::kernels::emulation::Block::current()->size(); ++i) result |= votes[i];
  __syncthreads();
  return result;
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int offset) {
  static T exchange[satin::kernels::emulation::kMaxThreads];
  exchange[threadIdx.x] = value;
  __syncwarp();
  const T result = exchange[threadIdx.x ^ static_cast<unsigned>(offset)];
  __syncwarp();
  return result;
}
