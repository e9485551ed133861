// What the kernels of act_quant.h share.
#pragma once
#include "kernels/act_quant_math.h"
#include "kernels/cuda/fake_quant_levels.cuh"

namespace satin::kernels {

constexpr int kHeld = 4;  ///< vectors that a thread holds in registers, all loaded before the first is used

/// Whether a scale takes plain divisions. Asked once for many values: a branch for each would cost more than the
/// division.
template <class C>
__device__ __forceinline__ bool plain_division(const Divider<C>& divide) {
  if constexpr (std::is_same_v<C, float>) {
    return divide.plain;
  } else {
    return true;
  }
}

inline unsigned num_blocks(int64_t num_items, int64_t items_per_block) {
  const int64_t blocks = (num_items + items_per_block - 1) / items_per_block;
  if (blocks > 0x7fffffff) throw std::invalid_argument("act_quant: too many values for one launch");
  return static_cast<unsigned>(blocks);
}

/// body.template operator()<X, V>(): vectors of kVector where a row of `length` and the pointers allow them, else
/// single values, as for fp64, which only tests use.
template <class Body>
void for_vectors(Dtype x_dtype, int64_t length, std::initializer_list<const void*> pointers, const Body& body) {
  for_weight(x_dtype, [&]<class X>(Type<X>) {
    if constexpr (!std::is_same_v<X, double>) {
      if (fits_vectors(length, pointers)) return body.template operator()<X, kVector>();
    }
    body.template operator()<X, 1>();
  });
}

}  // namespace satin::kernels
