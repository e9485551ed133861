// Weights, inputs and shapes that the CPU's and the GPU's tests of a8_linear share.
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "ops/a8_linear.h"

namespace satin::ops {

struct A8Case {
  int bits;
  int64_t rows, columns, groups;
  bool zeros;
  int step, zero;  ///< where `zeros` is false
  int64_t num_tokens;
};

/// Every number of bits, kind of levels and size of group; rows, columns and tokens that end inside tiles.
inline std::vector<A8Case> a8_cases() {
  return {
      {2, 128, 256, 2, false, 1, 2, 64},   {2, 100, 384, 1, false, 1, 1, 7},    {2, 200, 512, 4, true, 1, 0, 130},
      {2, 264, 512, 8, true, 1, 0, 300},   {2, 72, 320, 1, false, 2, 3, 129},   {1, 136, 256, 4, false, 2, 1, 65},
      {1, 50, 1000, 1, false, 2, 1, 33},   {1, 64, 512, 2, true, 1, 0, 128},    {3, 144, 640, 5, false, 1, 4, 100},
      {3, 33, 256, 4, true, 1, 0, 257},    {4, 300, 768, 6, false, 1, 8, 200},  {4, 128, 1024, 16, true, 1, 0, 520},
      {4, 17, 104, 1, true, 1, 0, 1},      {2, 640, 256, 1, false, 1, 2, 4500}, {2, 2100, 512, 4, false, 1, 2, 4200},
      {2, 2100, 512, 8, true, 1, 0, 4200}, {4, 256, 1024, 2, false, 1, 8, 96},  {2, 16, 2048, 32, false, 2, 3, 16},
  };
}

inline PackedWeight random_weight(const A8Case& c) {
  at::manual_seed(c.bits + c.rows);
  const int levels = c.step == 1 && c.zero == 1 && c.bits == 2 ? 3 : 1 << c.bits;
  const at::Tensor zero = c.zeros ? at::randint(1 << c.bits, {c.rows, c.groups}, at::kInt) : at::Tensor();
  return pack_codes(at::randint(levels, {c.rows, c.columns}, at::kByte), at::rand({c.rows, c.groups}) * .1 + .01, zero,
                    c.zero, c.bits, c.step, at::kBFloat16, at::kFloat);
}

}  // namespace satin::ops
