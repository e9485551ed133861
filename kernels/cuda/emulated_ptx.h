// ptx.cuh on the CPU, and of CUDA's functions what the kernels on packed weights call beyond emulation.h's.
#pragma once
#include <deque>
#include <numeric>
#include <vector>

#include "kernels/cuda/emulation.h"

struct uint2 {
  uint32_t x, y;
};
struct uint4 {
  uint32_t x, y, z, w;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
struct __half2 {
  uint16_t x, y;
};
struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
using std::max;
using std::min;
using std::rint;

namespace satin::kernels::emulation {

template <class To, class From>
To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float float_of_half(uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const float size = exponent == 31  ? (fraction ? NAN : INFINITY)
                     : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                     : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return half >> 15 ? -size : size;
}
inline uint16_t half_of_float(float x) {
  const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
  if (x != x) return sign | 0x7fff;
  const float size = std::fabs(x);
  if (size >= 65520) return sign | 0x7c00;
  int exponent = size > 0 ? std::max(std::ilogb(size), -14) : -14;
  // The fraction may round up to the next power of two, which the sum carries into the exponent.
  const auto fraction = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return static_cast<uint16_t>(sign | (((exponent + 14) << 10) + fraction));
}

/// Every thread of a warp puts a value, then f sees the warp's 32.
template <class T, class Function>
auto with_warp(const T& value, const Function& f) {
  static T all[kMaxThreads];
  const unsigned thread = threadIdx.x;
  all[thread] = value;
  __syncwarp();
  const auto result = f(all + thread / 32 * 32, thread % 32);
  __syncwarp();
  return result;
}

/// mma.sync m16n8: of A [16, K] and B [K, 8] a lane has the registers that PTX says, kEach numbers in each.
template <class C, int kEach, class OfA, class OfB>
void multiply_add(C (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const OfA& of_a, const OfB& of_b) {
  struct Operands {
    uint32_t a[4], b[2];
  };
  struct Sums {
    C c[4];
  };
  const Operands mine{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const Sums sums = with_warp(mine, [&](const Operands* all, unsigned lane) {
    Sums to{};
    const unsigned g = lane / 4, q = lane % 4;
    for (unsigned i = 0; i < 4; ++i) {
      double sum = 0;  // exact but for the last rounding
      for (unsigned from = 0; from < 4; ++from)
        for (unsigned half = 0; half < 2; ++half)
          for (int each = 0; each < kEach; ++each)
            sum +=
                of_a(all[4 * g + from].a[2 * half + i / 2], each) * of_b(all[4 * (2 * q + i % 2) + from].b[half], each);
      to.c[i] = static_cast<C>(static_cast<double>(c[i]) + sum);
    }
    return to;
  });
  std::copy(sums.c, sums.c + 4, c);
}

inline std::vector<uint64_t>& launched_memory() {
  static std::vector<uint64_t> memory;
  return memory;
}

}  // namespace satin::kernels::emulation

inline float __uint_as_float(uint32_t x) { return satin::kernels::emulation::same_bits<float>(x); }
inline float __int_as_float(int x) { return satin::kernels::emulation::same_bits<float>(x); }
inline uint32_t __float_as_uint(float x) { return satin::kernels::emulation::same_bits<uint32_t>(x); }
inline int __float_as_int(float x) { return satin::kernels::emulation::same_bits<int>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float2 __half22float2(__half2 x) {
  return {satin::kernels::emulation::float_of_half(x.x), satin::kernels::emulation::float_of_half(x.y)};
}
struct __half {
  uint16_t bits;
};
inline __half __float2half_rn(float x) { return {satin::kernels::emulation::half_of_float(x)}; }
inline uint16_t __half_as_ushort(__half x) { return x.bits; }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat162 __float2bfloat162_rn(float x) { return {__float2bfloat16_rn(x), __float2bfloat16_rn(x)}; }
inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {__float2bfloat16_rn(__bfloat162float(a.x) * __bfloat162float(b.x)),
          __float2bfloat16_rn(__bfloat162float(a.y) * __bfloat162float(b.y))};
}
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) result |= static_cast<uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return result;
}
inline uint32_t __funnelshift_l(uint32_t low, uint32_t high, int shift) {
  return static_cast<uint32_t>((uint64_t{high} << 32 | low) << (shift & 31) >> 32);
}
template <class T>
T __ldg(const T* from) {
  return *from;
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned distance) {
  return satin::kernels::emulation::with_warp(value,
                                              [&](const T* all, unsigned lane) { return all[(lane + distance) % 32]; });
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return satin::kernels::emulation::with_warp(value, [&](const T* all, unsigned) { return all[lane % 32]; });
}
inline uint32_t __reduce_add_sync(unsigned, uint32_t value) {
  return satin::kernels::emulation::with_warp(
      value, [](const uint32_t* all, unsigned) { return std::accumulate(all, all + 32, 0u); });
}
inline uint32_t __reduce_max_sync(unsigned, uint32_t value) {
  return satin::kernels::emulation::with_warp(
      value, [](const uint32_t* all, unsigned) { return *std::max_element(all, all + 32); });
}

namespace satin::kernels {

template <class T>
T* launched_shared() {
  return reinterpret_cast<T*>(emulation::launched_memory().data());
}
inline void wait_for_dependencies() {}
inline void let_dependents_start() {}
inline void load_once_if(bool is_here, uint32_t& x, uint32_t& y, uint32_t& z, uint32_t& w, const uint32_t* from) {
  if (is_here) x = from[0], y = from[1], z = from[2], w = from[3];
}
inline void load_once_if(bool is_here, uint32_t& x, uint32_t& y, const uint32_t* from) {
  if (is_here) x = from[0], y = from[1];
}
inline void load_if(bool is_here, uint32_t& x, uint32_t& y, uint32_t& z, uint32_t& w, const uint32_t* from) {
  load_once_if(is_here, x, y, z, w, from);
}
template <class T>
void load_if(bool is_here, uint32_t& to, const T* from) {
  if (is_here) to = *from;
}
inline void load_if(bool is_here, uint32_t& x, uint32_t& y, const uint32_t* from) { load_once_if(is_here, x, y, from); }
template <class T>
T in_register(T x) {
  return x;
}
template <class T>
const T* settled(const T* p) {
  return p;
}
template <class T>
void touch(const T*) {}
inline float larger_or_nan(float x, float y) { return x != x || x > y ? x : y; }
inline float approximate_inverse(float x) { return 1 / x; }
inline void clear(uint32_t (&x)[4]) { x[0] = x[1] = x[2] = x[3] = 0; }
/// A thread's copies arrive when it waits for them, not before.
namespace emulation {
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};
/// Of this thread: groups, the last of which has not ended.
inline std::deque<std::vector<Copy>>& copies() {
  static std::deque<std::vector<Copy>> of_threads[kMaxThreads];
  std::deque<std::vector<Copy>>& mine = of_threads[threadIdx.x];
  if (mine.empty()) mine.emplace_back();
  return mine;
}
}  // namespace emulation
class SharedAt {
 public:
  explicit SharedAt(const uint32_t* at) : at_(const_cast<uint32_t*>(at)) {}
  SharedAt plus(int words) const { return SharedAt(at_ + words); }
  SharedAt in_register() const { return *this; }
  void store(uint32_t x) const { *at_ = x; }
  template <int kBytes>
  void copy_if(bool is_wanted, const void* from) const {
    if (is_wanted) emulation::copies().back().push_back({at_, from, kBytes});
  }
  void load(uint32_t& x) const { x = at_[0]; }
  void load(uint32_t& x, uint32_t& y) const { x = at_[0], y = at_[1]; }
  void load(uint32_t& x, uint32_t& y, uint32_t& z, uint32_t& w) const {
    x = at_[0], y = at_[1], z = at_[2], w = at_[3];
  }
  void load_half(int on, uint32_t& x) const { x = at_[on / 2] >> 16 * (on % 2) & 0xffff; }
  void load(uint2& to) const { to = {at_[0], at_[1]}; }
  void load(uint4& to) const { to = {at_[0], at_[1], at_[2], at_[3]}; }

 private:
  uint32_t* at_;
};

inline void end_copies() { emulation::copies().emplace_back(); }
template <int kPending>
void wait_for_copies() {
  auto& groups = emulation::copies();
  for (; groups.size() > kPending + 1; groups.pop_front())
    for (const emulation::Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
}
inline float divide_in_range(float x, float y) { return x / y; }
template <uint32_t kMask, bool kNot>
uint32_t select_by(uint32_t a, uint32_t b) {
  const uint32_t selected = (a & kMask) | (b & ~kMask);
  return kNot ? ~selected : selected;
}
template <uint32_t kMask, uint32_t kB>
uint32_t masked_or(uint32_t a) {
  return (a & kMask) | kB;
}

inline void multiply_add(int (&d)[4], const uint32_t (&a)[4], uint2 b, const int (&c)[4]) {
  std::copy(c, c + 4, d);  // or d is c
  emulation::multiply_add<int, 4>(
      d, a, b.x, b.y, [](uint32_t x, int i) { return static_cast<double>(x >> 8 * i & 0xff); },
      [](uint32_t x, int i) { return static_cast<double>(static_cast<int8_t>(x >> 8 * i & 0xff)); });
}
inline void multiply_add_bits(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const int (&c)[4]) {
  const auto bit = [](uint32_t x, int i) { return static_cast<double>(x >> i & 1); };
  std::copy(c, c + 4, d);
  emulation::multiply_add<int, 32>(d, a, b[0], b[1], bit, bit);
}
inline void multiply_add_bits(int (&d)[4], const uint32_t (&a)[2], uint32_t b, const int (&c)[4]) {
  multiply_add_bits(d, {a[0], a[1], 0, 0}, {b, 0}, c);
}
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const auto number = [](uint32_t x, int i) -> double {
    return __bfloat162float({static_cast<uint16_t>(x >> 16 * i & 0xffff)});
  };
  emulation::multiply_add<float, 2>(c, a, b0, b1, number, number);
}

}  // namespace satin::kernels
