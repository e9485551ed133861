// A few rows of x times a packed weight, as fast as its bytes arrive.
//
// Codes are 8-bit integers as they lie: one AND gives four of them, at bit p of each byte, and mma.m16n8k32 multiplies
// them with x as integers. x is made 16-bit integers, a scale for 128 columns, and these two bytes each, which are two
// columns of the product: 256 high + low. Sums of codes at different p are brought together as integers, so nothing is
// rounded before a group's scale. A zero point takes off zero * sum x, and sums of x are known before.
//
// A block of warps owns kRows bricks of rows and all columns, dealt to its warps brick by brick; a warp asks for its
// next kRows bricks before it computes with the last ones. What does not depend on the kernel before (weights, scales)
// is asked for before that one has ended (programmatic dependent launch). Sums over warps are made in a fixed order.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/packed_matmul.h"

namespace satin::kernels {
namespace {

constexpr int kXStride = 40;        ///< words of 128 bytes of x in shared memory: rows fall on other banks
constexpr int kMostX = 32639;       ///< 127 * 256 + 127: both bytes of it are signed ones
constexpr float kMagic = 12582912;  ///< 1.5 * 2^23: added to an integer's bits, they are the bits of kMagic + integer
constexpr int kMagicBits = 0x4b400000;

struct Params {
  const uint32_t* words;
  const uint32_t* scales;
  const uint16_t* zeros;  // or null
  const uint16_t* x;      // half or bfloat16, as all activations
  uint16_t* y;
  const uint16_t* bias;
  const uint16_t* residual;
  int num_x_rows, num_rows, num_columns;
  int row_bricks, column_bricks, bricks_a_phase;
  int groups, group_shift;  // the group of segment s of brick b: (4 b + s) >> group_shift
  float zero, step;
  bool scales_are_half, x_is_half;
};

/// Calls f with 0 ... kCount - 1 as types.
template <int kCount, class Function>
__device__ __forceinline__ void for_each(const Function& f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>) { (f(std::integral_constant<int, kI>{}), ...); }
  (std::make_integer_sequence<int, kCount>{});
}

/// The kernel before this one in the stream has ended, and its results can be seen.
__device__ __forceinline__ void wait_for_dependencies() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
/// The next one may begin with what does not depend on this one.
__device__ __forceinline__ void let_dependents_start() { asm volatile("griddepcontrol.launch_dependents;"); }

__device__ __forceinline__ uint4 load_once(const uint4* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}
__device__ __forceinline__ uint2 load_once(const uint2* from) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
  return v;
}

/// c += a b; a: bytes without a sign, b: with one.
__device__ __forceinline__ void multiply_add(int (&c)[4], const uint32_t (&a)[4], uint2 b) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}

template <int kShift>
__device__ __forceinline__ uint32_t shifted_right(uint32_t x) {
  if constexpr (kShift >= 0)
    return x >> kShift;
  else
    return x << -kShift;
}

/// The codes of a lane's words (packed_weight.h) as A operands.
template <int kBits>
struct Codes {
  static constexpr int kWords = 2 * kBits;
  /// Bit of each byte where a segment's codes stand in its operand.
  static constexpr __host__ __device__ int position(int segment) {
    if (kBits == 8) return 0;
    if (kBits == 4) return 4 * (segment % 2);
    if (kBits == 3 && segment == 3) return 0;
    return kBits == 1 ? segment : 2 * segment;
  }

  /// Four codes: of row g (kRow 0) or g + 8, four kFour of the segment.
  template <int kSegment, int kRow, int kFour>
  static __device__ __forceinline__ uint32_t four(const uint32_t (&words)[kWords]) {
    constexpr uint32_t kBytes = 0x01010101;
    constexpr int p = position(kSegment);
    if constexpr (kBits == 8) {
      return words[8 * kRow + 2 * kSegment + kFour];
    } else if constexpr (kBits == 4) {
      return words[4 * kRow + 2 * (kSegment / 2) + kFour] & kBytes * (0xfu << p);
    } else if constexpr (kBits == 2) {
      return words[2 * kRow + kFour] & kBytes * (3u << p);
    } else if constexpr (kBits == 1) {
      return shifted_right<4 * kFour>(words[kRow]) & kBytes * (1u << p);
    } else {
      const uint32_t low = shifted_right<2 * kSegment - p>(words[2 * kRow + kFour]) & kBytes * (3u << p);
      const uint32_t high = shifted_right<kSegment + 4 * kFour - p - 2>(words[4 + kRow]) & kBytes * (4u << p);
      return low | high;
    }
  }
};

template <class Code>
constexpr __host__ __device__ int most_position(int first, int count) {
  int most = 0;
  for (int s = first; s < first + count; ++s) most = Code::position(s) > most ? Code::position(s) : most;
  return most;
}

template <int kBits>
__device__ __forceinline__ void load_brick(uint32_t (&words)[2 * kBits], const uint32_t* brick, int lane) {
  if constexpr (kBits == 1) {
    const uint2 v = load_once(reinterpret_cast<const uint2*>(brick) + lane);
    words[0] = v.x, words[1] = v.y;
  } else {
    constexpr int kFours = kBits == 3 ? 1 : kBits / 2;
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const uint4 v = load_once(reinterpret_cast<const uint4*>(brick) + i * kLanes + lane);
      words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
    }
    if constexpr (kBits == 3) {
      const uint2 v = load_once(reinterpret_cast<const uint2*>(brick + 4 * kLanes) + lane);
      words[4] = v.x, words[5] = v.y;
    }
  }
}

__device__ __forceinline__ float2 pair_of(uint32_t bits, bool is_half) {
  if (is_half) return __half22float2(*reinterpret_cast<const __half2*>(&bits));
  return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
}

/// x in shared memory: bytes [brick][row of x][high, low][kXStride words], sums [brick][row][4], scales [brick][row].
struct XMemory {
  uint32_t* bytes;
  float* sums;
  float* scales;
  static __host__ __device__ int words(int bricks, int rows) { return bricks * rows * (2 * kXStride + 5); }
  __device__ XMemory(uint32_t* at, int bricks, int rows)
      : bytes(at),
        sums(reinterpret_cast<float*>(at + bricks * rows * 2 * kXStride)),
        scales(sums + bricks * rows * 4) {}
};

/// A warp's share of x: 128 columns of a row at a time, kAtOnce of these together. Lane l has columns 4 l ... 4 l + 3.
template <int kWarps>
__device__ __forceinline__ void make_integers(const Params& p, const XMemory& memory, int first_brick, int count,
                                              int warp, int lane) {
  constexpr int kAtOnce = 4;
  const int m = p.num_x_rows;
  for (int begin = warp; begin < count; begin += kAtOnce * kWarps) {
    uint2 raw[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int slot = begin + i * kWarps;
      const int brick = m == 1 ? slot : slot / m, row = m == 1 ? 0 : slot % m;
      const int column = (first_brick + brick) * kBrickColumns + 4 * lane;
      raw[i] = {};
      if (slot < count && column < p.num_columns)
        raw[i] = __ldg(reinterpret_cast<const uint2*>(p.x + static_cast<int64_t>(row) * p.num_columns + column));
    }
    float4 x[kAtOnce];
    float most[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float2 first = pair_of(raw[i].x, p.x_is_half), second = pair_of(raw[i].y, p.x_is_half);
      x[i] = {first.x, first.y, second.x, second.y};
      most[i] = fmaxf(fmaxf(fabsf(x[i].x), fabsf(x[i].y)), fmaxf(fabsf(x[i].z), fabsf(x[i].w)));
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)  // as bits: no float here has a sign
      most[i] = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(most[i])));
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int slot = begin + i * kWarps;
      if (slot >= count) break;
      const float inverse = most[i] > 0 ? __fdividef(kMostX, most[i]) : 0;
      const int a = __float2int_rn(x[i].x * inverse), b = __float2int_rn(x[i].y * inverse),
                c = __float2int_rn(x[i].z * inverse), d = __float2int_rn(x[i].w * inverse);
      // In the bytes' order c0 c2 c1 c3; + 128 rounds the high byte to the nearest, and leaves a signed low one.
      const auto bytes = [](int c0, int c1, int c2, int c3) {
        return __byte_perm(__byte_perm(c0, c2, 0x0040), __byte_perm(c1, c3, 0x0040), 0x5410);
      };
      uint32_t* const to = memory.bytes + slot * 2 * kXStride + lane;
      to[0] = bytes((a + 128) >> 8, (b + 128) >> 8, (c + 128) >> 8, (d + 128) >> 8);
      to[kXStride] = bytes(a, b, c, d);
      int sum = a + b + c + d;
#pragma unroll
      for (int distance = 4; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
      if (lane % 8 == 0) memory.sums[slot * 4 + lane / 8] = static_cast<float>(sum);
      if (lane == 0) memory.scales[slot] = most[i] / kMostX;
    }
  }
}

/// kSegments: of a brick's 32 columns that share a scale (4: a brick or more).
template <int kBits, int kSegments, int kRows, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, 16 / kWarps) decode_kernel(const Params p) {
  using Code = Codes<kBits>;
  constexpr int kThreads = 32 * kWarps, kBrickWords = Code::kWords * kLanes;
  let_dependents_start();
  extern __shared__ __align__(16) uint32_t shared[];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes, lane = thread % kLanes, g = lane / 4,
            q = lane % 4, m = p.num_x_rows;
  const int row_brick = static_cast<int>(blockIdx.x) * kRows, num_here = min(kRows, p.row_bricks - row_brick);

  // A lane's words of the next bricks, and a lane each of their pairs of scales and zeros: [row brick][group][8].
  constexpr int kGroups = 4 / kSegments, kPairWords = (kRows * kGroups * 8 + kLanes - 1) / kLanes;
  struct Ahead {
    uint32_t words[kRows][Code::kWords] = {};
    uint32_t scales[kPairWords] = {};
    uint32_t zeros[kPairWords] = {};
  };
  const int row_words = p.column_bricks * kBrickWords;
  const uint32_t* next = p.words + static_cast<int64_t>(row_brick) * row_words + warp * kBrickWords;
  int next_brick = warp;  // a warp's are kWarps apart
  const auto load = [&](Ahead& to) {
    if (next_brick < p.column_bricks) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (r < num_here) load_brick<kBits>(to.words[r], next + r * row_words, lane);
#pragma unroll
      for (int i = 0; i < kPairWords; ++i) {
        const int at = i * kLanes + lane, r = at / (8 * kGroups), in_row = at % (8 * kGroups);
        const int pair = ((4 * next_brick) >> p.group_shift) * 8 + in_row;
        const bool inside = r < num_here && pair < p.groups * 8;  // what fills the matrix up is 0 times 0
        const int64_t from = static_cast<int64_t>(row_brick + r) * p.groups * 8 + pair;
        to.scales[i] = inside ? __ldg(p.scales + from) : 0;
        if (p.zeros) to.zeros[i] = inside ? __ldg(p.zeros + from) : 0;
      }
    }
    next += kWarps * kBrickWords;
    next_brick += kWarps;
  };
  Ahead ahead;
  load(ahead);
  const XMemory memory(shared, p.bricks_a_phase, m);
  wait_for_dependencies();

  float total[kRows][2] = {};  // rows g and g + 8, row q of x
  for (int phase = 0; phase < p.column_bricks; phase += p.bricks_a_phase) {
    const int end = min(phase + p.bricks_a_phase, p.column_bricks);
    if (phase > 0) __syncthreads();
    make_integers<kWarps>(p, memory, phase, (end - phase) * m, warp, lane);
    __syncthreads();
    for (int brick = phase + warp; brick < end; brick += kWarps) {
      const Ahead now = ahead;
      load(ahead);
      // B operand: column g is the high (even g) or the low bytes of row g / 2.
      uint2 b[4] = {};
      if (g / 2 < m) {
        const uint32_t* const from = memory.bytes + (((brick - phase) * m + g / 2) * 2 + g % 2) * kXStride + 2 * q;
#pragma unroll
        for (int s = 0; s < 4; ++s) b[s] = *reinterpret_cast<const uint2*>(from + 8 * s);
      }
      // Of row q, whose high and low sums this lane has.
      const int slot = (brick - phase) * m + min(q, m - 1);
      const float x_scale = memory.scales[slot];
      const float4 sums = *reinterpret_cast<const float4*>(memory.sums + 4 * slot);
      const float sum_of[4] = {sums.x, sums.y, sums.z, sums.w};
      for_each<kGroups>([&](auto group) {
        constexpr int kGroup = decltype(group)::value, kFirst = kGroup * kSegments;
        constexpr int kMost = most_position<Code>(kFirst, kSegments);
        float sum_x = 0;
#pragma unroll
        for (int s = 0; s < kSegments; ++s) sum_x += sum_of[kFirst + s];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          int sum[8][4] = {};  // by position of the codes; unused ones cost nothing
#pragma unroll
          for (int i = 0; i < 4; ++i) sum[kMost][i] = kMagicBits;
          for_each<kSegments>([&](auto in_group) {
            constexpr int s = kFirst + decltype(in_group)::value;
            const uint32_t a[4] = {
                Code::template four<s, 0, 0>(now.words[r]), Code::template four<s, 1, 0>(now.words[r]),
                Code::template four<s, 0, 1>(now.words[r]), Code::template four<s, 1, 1>(now.words[r])};
            multiply_add(sum[Code::position(s)], a, b[s]);
          });
          float of[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            int all = sum[kMost][i];
#pragma unroll
            for (int place = 0; place < kMost; ++place) all += sum[place][i] << (kMost - place);
            of[i] = __int_as_float(all) - kMagic;
          }
          const int pair = 8 * (kGroups * r + kGroup);
          const float2 scale =
              pair_of(__shfl_sync(~0u, now.scales[pair / kLanes], pair % kLanes + g), p.scales_are_half);
          float2 zero{p.zero, p.zero};
          if (p.zeros) {
            const uint32_t z = __shfl_sync(~0u, now.zeros[pair / kLanes], pair % kLanes + g);
            zero = {static_cast<float>(z & 0xff), static_cast<float>(z >> 8)};
          }
          constexpr float kUnit = 1.f / (1 << kMost);
          const float lower = (256 * of[0] + of[1]) * kUnit - zero.x * sum_x;
          const float upper = (256 * of[2] + of[3]) * kUnit - zero.y * sum_x;
          total[r][0] += scale.x * x_scale * lower;
          total[r][1] += scale.y * x_scale * upper;
        }
      });
    }
  }

  // Sums over the warps. [warp][row of x][16 kRows]
  constexpr int kOutputs = kRows * kBrickRows;
  float* const parts = reinterpret_cast<float*>(shared);
  __syncthreads();
  if (q < m)
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float* const to = parts + (warp * m + q) * kOutputs + r * kBrickRows + g;
      to[0] = total[r][0];
      to[8] = total[r][1];
    }
  __syncthreads();
  const auto number = [&](uint16_t bits) { return pair_of(bits, p.x_is_half).x; };
  for (int i = thread; i < m * kOutputs; i += kThreads) {
    const int row = row_brick * kBrickRows + i % kOutputs;
    if (row >= p.num_rows) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += parts[w * m * kOutputs + i];
    sum *= p.step;
    const int64_t at = static_cast<int64_t>(i / kOutputs) * p.num_rows + row;
    if (p.bias) sum += number(p.bias[row]);
    if (p.residual) sum += number(p.residual[at]);
    p.y[at] = p.x_is_half ? __half_as_ushort(__float2half_rn(sum)) : __bfloat16_as_ushort(__float2bfloat16_rn(sum));
  }
}

void require(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("packed_decode: ") + cudaGetErrorString(status));
}

template <int kBits, int kSegments, int kRows, int kWarps>
void launch(Params p, CUstream_st* stream) {
  constexpr int kMostXWords = 64 * 1024 / 4;  // two blocks fit a multiprocessor
  const int x_words = XMemory::words(1, p.num_x_rows);
  p.bricks_a_phase = std::min(p.column_bricks, kMostXWords / x_words / kWarps * kWarps);
  const int words =
      std::max(XMemory::words(p.bricks_a_phase, p.num_x_rows), kWarps * p.num_x_rows * kRows * kBrickRows);
  const auto kernel = decode_kernel<kBits, kSegments, kRows, kWarps>;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 4 * words));
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = {static_cast<unsigned>((p.row_bricks + kRows - 1) / kRows), 1, 1};
  config.blockDim = {32 * kWarps, 1, 1};
  config.dynamicSmemBytes = static_cast<size_t>(4 * words);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  require(cudaLaunchKernelEx(&config, kernel, p));
}

/// Blocks that a multiprocessor runs at the same time have 16 warps together, in one block or two; each should have one
/// share of the rows.
template <int kBits, int kSegments>
void launch_for_rows(const Params& p, CUstream_st* stream) {
  int device = 0, processors = 0;
  require(cudaGetDevice(&device));
  require(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  if constexpr (kBits == 8 || kSegments == 1) {  // many registers
    if (p.row_bricks <= processors) return launch<kBits, kSegments, 1, 16>(p, stream);
    return launch<kBits, kSegments, 2, 8>(p, stream);
  } else {
    if (p.row_bricks <= processors) return launch<kBits, kSegments, 1, 16>(p, stream);
    if (p.row_bricks <= 2 * processors) return launch<kBits, kSegments, 2, 16>(p, stream);
    if (p.row_bricks <= 4 * processors) return launch<kBits, kSegments, 4, 16>(p, stream);
    return launch<kBits, kSegments, 4, 8>(p, stream);
  }
}

template <int kBits>
void launch_for_groups(const Params& p, CUstream_st* stream) {
  if (p.group_shift == 0) return launch_for_rows<kBits, 1>(p, stream);
  if (p.group_shift == 1) return launch_for_rows<kBits, 2>(p, stream);
  launch_for_rows<kBits, 4>(p, stream);
}

}  // namespace

void packed_decode_cuda(const DecodeArgs& args, CUstream_st* stream) {
  const PackedShape& shape = args.w.shape;
  check(args);
  Params p{};
  p.words = args.w.words;
  p.scales = static_cast<const uint32_t*>(args.w.scales);
  p.zeros = reinterpret_cast<const uint16_t*>(args.w.zeros);
  p.x = static_cast<const uint16_t*>(args.x);
  p.y = static_cast<uint16_t*>(args.y);
  p.bias = static_cast<const uint16_t*>(args.bias);
  p.residual = static_cast<const uint16_t*>(args.residual);
  p.num_x_rows = args.num_rows;
  p.num_rows = static_cast<int>(shape.num_rows);
  p.num_columns = static_cast<int>(shape.num_columns);
  p.row_bricks = static_cast<int>(shape.row_bricks());
  p.column_bricks = static_cast<int>(shape.column_bricks());
  p.groups = static_cast<int>(shape.num_groups());
  while ((int64_t{32} << p.group_shift) < shape.group_size) ++p.group_shift;
  if (p.groups == 1) p.group_shift = 30;
  p.step = static_cast<float>(args.w.step);
  p.zero = static_cast<float>(args.w.zero) / p.step;
  p.scales_are_half = args.w.scale_dtype == Half::kFloat16;
  p.x_is_half = args.dtype == Half::kFloat16;
  switch (shape.bits) {
    case 1:
      return launch_for_groups<1>(p, stream);
    case 2:
      return launch_for_groups<2>(p, stream);
    case 3:
      return launch_for_groups<3>(p, stream);
    case 4:
      return launch_for_groups<4>(p, stream);
    default:
      return launch_for_groups<8>(p, stream);
  }
}

}  // namespace satin::kernels
