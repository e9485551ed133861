// Instructions that C++ has no words for, as functions: what a kernel is written in, so that a test on the CPU
// (kernels/cuda/emulation.h) has the same kernel with other functions under it.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace satin::kernels {

/// A block's memory of a size that the launch says; 16-byte aligned.
template <class T>
__device__ __forceinline__ T* launched_shared() {
  extern __shared__ __align__(16) unsigned char launched_shared_bytes[];
  return reinterpret_cast<T*>(launched_shared_bytes);
}

/// The kernel before this one in the stream has ended, and its results can be seen.
__device__ __forceinline__ void wait_for_dependencies() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// The next one may begin with what does not depend on this one.
__device__ __forceinline__ void let_dependents_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/// Of what is read once, and where `is_here` alone: else `to` stays. Not through the read-only path, whose loads the
/// compiler moves behind wait_for_dependencies.
__device__ __forceinline__ void load_once_if(bool is_here, uint32_t& x, uint32_t& y, uint32_t& z, uint32_t& w,
                                             const uint32_t* from) {
  asm volatile(
      "{.reg .pred here; setp.ne.s32 here, %5, 0;"
      "@here ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];}"
      : "+r"(x), "+r"(y), "+r"(z), "+r"(w)
      : "l"(from), "r"(static_cast<int>(is_here))
      : "memory");
}
__device__ __forceinline__ void load_once_if(bool is_here, uint32_t& x, uint32_t& y, const uint32_t* from) {
  asm volatile(
      "{.reg .pred here; setp.ne.s32 here, %3, 0;"
      "@here ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2];}"
      : "+r"(x), "+r"(y)
      : "l"(from), "r"(static_cast<int>(is_here))
      : "memory");
}
/// Of what is read again.
__device__ __forceinline__ void load_if(bool is_here, uint32_t& x, uint32_t& y, uint32_t& z, uint32_t& w,
                                        const uint32_t* from) {
  asm volatile(
      "{.reg .pred here; setp.ne.s32 here, %5, 0;"
      "@here ld.global.v4.u32 {%0, %1, %2, %3}, [%4];}"
      : "+r"(x), "+r"(y), "+r"(z), "+r"(w)
      : "l"(from), "r"(static_cast<int>(is_here))
      : "memory");
}
__device__ __forceinline__ void load_if(bool is_here, uint32_t& x, uint32_t& y, const uint32_t* from) {
  asm volatile("{.reg .pred here; setp.ne.s32 here, %3, 0; @here ld.global.cg.v2.u32 {%0, %1}, [%2];}"
               : "+r"(x), "+r"(y)
               : "l"(from), "r"(static_cast<int>(is_here))
               : "memory");
}
__device__ __forceinline__ void load_if(bool is_here, uint32_t& to, const uint32_t* from) {
  asm volatile("{.reg .pred here; setp.ne.s32 here, %2, 0; @here ld.global.u32 %0, [%1];}"
               : "+r"(to)
               : "l"(from), "r"(static_cast<int>(is_here))
               : "memory");
}
__device__ __forceinline__ void load_if(bool is_here, uint32_t& to, const uint16_t* from) {
  asm volatile("{.reg .pred here; setp.ne.s32 here, %2, 0; @here ld.global.u16 %0, [%1];}"
               : "+r"(to)
               : "l"(from), "r"(static_cast<int>(is_here))
               : "memory");
}

/// 4 kWords bytes of shared memory where they are wanted: else `to` stays.
template <int kWords>
__device__ __forceinline__ void load_shared_if(bool is_here, uint32_t* to, const uint16_t* from) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(from));
  if constexpr (kWords == 4)
    asm volatile("{.reg .pred here; setp.ne.s32 here, %5, 0; @here ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];}"
                 : "+r"(to[0]), "+r"(to[1]), "+r"(to[2]), "+r"(to[3])
                 : "r"(at), "r"(static_cast<int>(is_here)));
  else
    asm volatile("{.reg .pred here; setp.ne.s32 here, %3, 0; @here ld.shared.v2.u32 {%0, %1}, [%2];}"
                 : "+r"(to[0]), "+r"(to[1])
                 : "r"(at), "r"(static_cast<int>(is_here)));
}

/// x = 0, in a branch of its own: what is seldom done takes no instructions of what is done always.
__device__ __forceinline__ void clear(uint32_t (&x)[4]) {
  asm volatile("mov.b32 %0, 0; mov.b32 %1, 0; mov.b32 %2, 0; mov.b32 %3, 0;"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]));
}

/// x, of which the compiler does not know that it is x: it keeps it in a register, where it would make it again and
/// again. All lanes together.
template <class T>
__device__ __forceinline__ T in_register(T x) {
  return __shfl_sync(~0u, x, threadIdx.x);
}

/// p, as a number that sums begin with: the compiler would add what is behind it first.
template <class T>
__device__ __forceinline__ const T* settled(const T* p) {
  asm volatile("" : "+l"(p));
  return p;
}

/// Reads an argument now: those beside it are there when they are used.
template <class T>
__device__ __forceinline__ void touch(const T* argument) {
  asm volatile("" ::"l"(argument));
}

/// NaN if one is.
__device__ __forceinline__ float larger_or_nan(float x, float y) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(x), "f"(y));
  return larger;
}
/// 1 / x but for the last bits, of 2^-126 ... 2^126.
__device__ __forceinline__ float approximate_inverse(float x) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
  return inverse;
}

/// 2^x but for the last bits.
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// A place in the block's memory, as its loads take it.
class SharedAt {
 public:
  __device__ __forceinline__ explicit SharedAt(const uint32_t* at)
      : at_(static_cast<uint32_t>(__cvta_generic_to_shared(at))) {}
  __device__ __forceinline__ SharedAt plus(int words) const { return SharedAt(at_ + 4 * words, 0); }
  __device__ __forceinline__ SharedAt in_register() const { return SharedAt(satin::kernels::in_register(at_), 0); }
  __device__ __forceinline__ void store(uint32_t x) const {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at_), "r"(x) : "memory");
  }
  /// kBytes, 8 or 16, from there without a register between, where they are wanted. A thread's copies go on until it
  /// waits for them.
  template <int kBytes>
  __device__ __forceinline__ void copy_if(bool is_wanted, const void* from) const {
    if constexpr (kBytes == 16)
      asm volatile("{.reg .pred p; setp.ne.s32 p, %2, 0; @p cp.async.cg.shared.global [%0], [%1], 16;}" ::"r"(at_),
                   "l"(from), "r"(static_cast<int>(is_wanted))
                   : "memory");
    else
      asm volatile("{.reg .pred p; setp.ne.s32 p, %2, 0; @p cp.async.ca.shared.global [%0], [%1], %3;}" ::"r"(at_),
                   "l"(from), "r"(static_cast<int>(is_wanted)), "n"(kBytes)
                   : "memory");
  }
  __device__ __forceinline__ void load(uint32_t& x) const {
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(at_) : "memory");
  }
  __device__ __forceinline__ void load(uint32_t& x, uint32_t& y) const {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(x), "=r"(y) : "r"(at_) : "memory");
  }
  __device__ __forceinline__ void load(uint32_t& x, uint32_t& y, uint32_t& z, uint32_t& w) const {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x), "=r"(y), "=r"(z), "=r"(w) : "r"(at_) : "memory");
  }
  /// 16 bits, that many times as far on.
  __device__ __forceinline__ void load_half(int on, uint32_t& x) const {
    asm volatile("{.reg .u16 half; ld.shared.u16 half, [%1]; cvt.u32.u16 %0, half;}"
                 : "=r"(x)
                 : "r"(at_ + 2 * on)
                 : "memory");
  }
  __device__ __forceinline__ void load(uint2& to) const {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(to.x), "=r"(to.y) : "r"(at_) : "memory");
  }
  __device__ __forceinline__ void load(uint4& to) const {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
                 : "r"(at_)
                 : "memory");
  }

 private:
  __device__ __forceinline__ SharedAt(uint32_t at, int) : at_(at) {}
  uint32_t at_;
};

/// A thread's copies (SharedAt) since the last end are a group.
__device__ __forceinline__ void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// All but the last kPending groups are there.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// x / y rounded to nearest, as `/`, where y is in 2^-60 ... 2^126 and x / y in 2^-30 ... 2^127 (below: but for last
/// bits), without a branch to what divides all numbers. NaN of NaN.
__device__ __forceinline__ float divide_in_range(float x, float y) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(y));
  inverse = __fmaf_rn(inverse, __fmaf_rn(-y, inverse, 1), inverse);
  float result = __fmul_rn(x, inverse);
#pragma unroll
  for (int i = 0; i < 2; ++i) result = __fmaf_rn(inverse, __fmaf_rn(-y, result, x), result);
  return result;
}

/// a where the mask has ones, else b, or what that is not, in one instruction.
template <uint32_t kMask, bool kNot>
__device__ __forceinline__ uint32_t select_by(uint32_t a, uint32_t b) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(result) : "r"(a), "r"(b), "n"(kMask), "n"(kNot ? 0x1b : 0xe4));
  return result;
}
/// (a & mask) | b in one instruction.
template <uint32_t kMask, uint32_t kB>
__device__ __forceinline__ uint32_t masked_or(uint32_t a) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "n"(kMask), "n"(kB));
  return result;
}

/// d = a b + c, where d may be c; a: bytes without a sign, b: with one.
__device__ __forceinline__ void multiply_add(int (&d)[4], const uint32_t (&a)[4], uint2 b, const int (&c)[4]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
/// d = sums of a AND b, bit by bit, + c, where d may be c: 256 bits of a row of A and a column of B, or 128.
__device__ __forceinline__ void multiply_add_bits(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                  const int (&c)[4]) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%11,%12,%13};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
__device__ __forceinline__ void multiply_add_bits(int (&d)[4], const uint32_t (&a)[2], uint32_t b, const int (&c)[4]) {
  asm("mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
/// c += a b of bfloat16 numbers.
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// The same, or of half numbers.
template <bool kHalf>
__device__ __forceinline__ void multiply_add(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                             uint32_t b0, uint32_t b1) {
  if constexpr (kHalf)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  else
    multiply_add(c, {a0, a1, a2, a3}, b0, b1);
}

}  // namespace satin::kernels
#else
#include "kernels/cuda/emulated_ptx.h"
#endif
