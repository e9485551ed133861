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

/// Added to a number of at most 2^21 it leaves the nearest integer, ties to even, in the sum's low bits.
constexpr float kIntegerShift = 12582912.0f;

/// kIntegerShift + the level of each x / scale by one product with the reciprocal, where all of them are within `top`
/// but for rounding. False when a quotient is so near a half that only a division can tell: 2^-15 is over twice what
/// product and quotient may differ by.
template <class X, int V>
__device__ __forceinline__ bool quick_levels(const Pack<X, V>& pack, float reciprocal, float (&shifted)[V]) {
  float farthest = 0;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const float x = load_as<float>(pack.values[j]);
    shifted[j] = fmaf(x, reciprocal, kIntegerShift);
    farthest = fmaxf(farthest, fabsf(fmaf(x, reciprocal, kIntegerShift - shifted[j])));
  }
  return farthest < 0.5f - 0x1p-15f;
}

/// The low bytes of four numbers, the first lowest.
__device__ __forceinline__ uint32_t low_bytes(float a, float b, float c, float d) {
#if defined(__CUDA_ARCH__)
  const uint32_t low = __byte_perm(__float_as_uint(a), __float_as_uint(b), 0x0040);
  return __byte_perm(low, __byte_perm(__float_as_uint(c), __float_as_uint(d), 0x0040), 0x5410);
#else
  const auto byte = [](float x) { return bits_of(x) & 0xffu; };
  return byte(a) | byte(b) << 8 | byte(c) << 16 | byte(d) << 24;
#endif
}

/// The largest of the magnitudes of a vector's numbers and `largest`. Of bfloat16 the upper halves of fp32 are compared
/// two at a time.
template <class X, int V, class Bits>
__device__ __forceinline__ Bits largest_of(const Pack<X, V>& pack, Bits largest) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<X, __nv_bfloat16> && V % 2 == 0 && std::is_same_v<Bits, uint32_t>) {
    uint32_t words[V / 2], most = 0;
    memcpy(words, &pack, sizeof words);
#pragma unroll
    for (int j = 0; j < V / 2; ++j) most = __vmaxu2(most, words[j] & 0x7fff7fffu);
    return larger(largest, larger(most << 16, most & 0xffff0000u));
  } else
#endif
  {
    using C = std::conditional_t<sizeof(Bits) == 8, double, float>;
#pragma unroll
    for (int j = 0; j < V; ++j) largest = larger(largest, magnitude(load_as<C>(pack.values[j])));
    return largest;
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
