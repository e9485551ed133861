// What the kernels on packed weights end with: sums over a block's warps -> y.
#pragma once
#include "kernels/cuda/packed_device.cuh"

namespace satin::kernels {

/// A lane's sums of rows g and g + 8 of row brick r, for row `x_row` of x: parts [warp][kXRows][16 kRows].
template <int kRows, int kXRows>
__device__ __forceinline__ void put_sums(float* parts, int warp, int x_row, int r, int g, float lower, float upper) {
  float* const to = parts + (warp * kXRows + x_row) * kRows * kBrickRows + r * kBrickRows + g;
  to[0] = lower;
  to[8] = upper;
}

/// In a tree, since each sum waits for the one before.
template <int kCount, class Term>
__device__ __forceinline__ float sum_of(const Term& term) {
  float of[4] = {term(0), term(1), term(2), term(3)};
#pragma unroll
  for (int i = 4; i < kCount; ++i) of[i % 4] += term(i);
  return (of[0] + of[1]) + (of[2] + of[3]);
}

/// What a block gives: numbers of y for kRows row bricks and kXRows rows of x. What a thread's take besides the sums it
/// asks for early: a residual comes 600 cycles later, arguments of which none was read before 250, and at the end all
/// would wait.
template <int kRows, int kWarps, int kXRows>
class Outputs {
 public:
  __device__ __forceinline__ explicit Outputs(const PackedParams& p) : p_(p) {}

  /// Of the first `bricks` of the row bricks from row_brick on.
  __device__ __forceinline__ void ask(int row_brick, int bricks) {
    touch(p_.y);
    const int rows = p_.gated ? p_.num_rows / 2 : p_.num_rows;
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      const unsigned i = threadIdx.x + static_cast<unsigned>(n) * kThreads;
      const int x_row = static_cast<int>(i / kOutputs), at = static_cast<int>(i % kOutputs);
      const int row = p_.gated ? (row_brick / 2 + at / 32) * kBrickRows + at % 16 : row_brick * kBrickRows + at;
      is_here_[n] = at < bricks * kBrickRows && x_row < p_.num_x_rows && row < rows;
      to_[n] = static_cast<unsigned>(x_row * rows + row);
      of_bias_[n] = row + (p_.gated && at % 32 >= 16 ? rows : 0);
    }
  }
  /// The same, of what other kernels may have written: after wait_for_dependencies.
  __device__ __forceinline__ void ask_bias_and_residual() {
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      bias_[n] = residual_[n] = 0;
      load_if(is_here_[n] && p_.bias, bias_[n], p_.bias + of_bias_[n]);
      const bool is_wanted = is_here_[n] && p_.residual;
      load_if(is_wanted && p_.wide, residual_[n], static_cast<const uint32_t*>(p_.residual) + to_[n]);
      load_if(is_wanted && !p_.wide, residual_[n], static_cast<const uint16_t*>(p_.residual) + to_[n]);
    }
  }

  /// All warps have put their sums; `factor` of a row of x multiplies them.
  template <class Factor>
  __device__ __forceinline__ void store(const float* parts, const Factor& factor) const {
    const auto number = [&](uint32_t bits) { return pair_of(bits, p_.x_is_half).x; };
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      const unsigned i = threadIdx.x + static_cast<unsigned>(n) * kThreads;
      if (i >= (kXRows * kOutputs + 31) / 32 * 32) break;  // whole warps
      float sum = 0;
      if (is_here_[n])
        sum = sum_of<kWarps>([&](int w) { return parts[static_cast<unsigned>(w) * kXRows * kOutputs + i]; }) *
              (factor(static_cast<int>(i / kOutputs)) * p_.step);
      if (p_.bias) sum += number(bias_[n]);
      if (p_.gated) {  // lanes 16 and up have the ups of the lanes below
        sum = __fdividef(sum, 1 + __expf(-sum)) * __shfl_down_sync(~0u, sum, 16);
        if (i % 32 >= 16) continue;
      }
      if (!is_here_[n]) continue;
      if (p_.wide) {
        static_cast<float*>(p_.y)[to_[n]] = sum + __uint_as_float(residual_[n]);
      } else {
        sum += number(residual_[n]);
        static_cast<uint16_t*>(p_.y)[to_[n]] =
            p_.x_is_half ? __half_as_ushort(__float2half_rn(sum)) : __bfloat16_as_ushort(__float2bfloat16_rn(sum));
      }
    }
  }

 private:
  static constexpr unsigned kOutputs = kRows * kBrickRows, kThreads = 32 * kWarps;
  static constexpr int kEach = (kXRows * kOutputs + kThreads - 1) / kThreads;
  const PackedParams& p_;
  bool is_here_[kEach];
  unsigned to_[kEach];  ///< of y
  int of_bias_[kEach];
  uint32_t bias_[kEach], residual_[kEach];
};

}  // namespace satin::kernels
