// A few rows of x times a packed weight, as fast as its bytes arrive.
//
// The weight is the A operand of mma.m16n8k16 (its 16 rows are outputs), x the B operand (its 8 columns are rows of x),
// so 1 and 8 rows of x cost the same instructions. A block of 16 warps owns kRows bricks of rows and a range of columns,
// dealt to its warps brick by brick; a warp asks for all of its next kRows bricks before it computes, which keeps 32 to
// 64 KB of a multiprocessor's loads under way. Partial sums meet in shared memory, then, where the columns are split
// over a cluster of blocks, in the memory of its first one: always in the same order.
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/cuda/packed_numbers.cuh"
#include "kernels/packed_matmul.h"

namespace satin::kernels {
namespace {
namespace cg = cooperative_groups;

template <class T>
struct Params {
  const uint32_t* words;
  const uint32_t* scales;
  const uint16_t* zeros;
  const T* x;
  T* y;
  const T* bias;
  const T* residual;
  int num_x_rows, num_rows, num_columns;
  int row_bricks, column_bricks, bricks_a_block;  // of columns
  int groups, group_shift, groups_a_block;        // group of column brick b's 32 columns i: (4 b + i) >> group_shift
  int splits;
  float zero, step;
  bool scales_are_half;
};

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

template <class T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float2 scale_pair(uint32_t bits, bool is_half) {
  if (is_half) return __half22float2(bits_as<__half2>(bits));
  return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
}

/// One lane's words of a brick; zeros outside the matrix.
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

/// x of one brick's columns as B operands: [8 tiles][two registers], for rows 8 n + lane / 4.
template <class T>
__device__ __forceinline__ void load_x(uint32_t (&b)[16], const Params<T>& p, int brick, int n, int lane) {
  const int row = 8 * n + lane / 4, q = lane % 4;
#pragma unroll
  for (int s = 0; s < 4; ++s) {
    const int column = brick * kBrickColumns + 32 * s + 8 * q;
    uint4 v{};
    if (row < p.num_x_rows && column < p.num_columns)
      v = __ldg(reinterpret_cast<const uint4*>(p.x + static_cast<int64_t>(row) * p.num_columns + column));
    b[4 * s] = v.x, b[4 * s + 1] = v.y, b[4 * s + 2] = v.z, b[4 * s + 3] = v.w;
  }
}

/// Calls f with 0 ... kCount - 1 as types.
template <int kCount, class Function>
__device__ __forceinline__ void for_each(const Function& f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>) { (f(std::integral_constant<int, kI>{}), ...); }
  (std::make_integer_sequence<int, kCount>{});
}

/// kSegments: of 32 columns, of a brick, that share a scale (4: a brick or more).
template <int kBits, class T, bool kZeros, int kSegments, int kN, int kRows, int kAhead, int kWarps, int kBlocks>
__global__ void __launch_bounds__(32 * kWarps, kBlocks) decode_kernel(const Params<T> p) {
  using Code = Codes<kBits, T>;
  constexpr int kThreads = 32 * kWarps;
  asm volatile("griddepcontrol.launch_dependents;");
  extern __shared__ __align__(16) uint32_t shared[];
  const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes, g = lane / 4;
  const int split = static_cast<int>(blockIdx.x) % p.splits;
  const int row_brick = static_cast<int>(blockIdx.x) / p.splits * kRows;
  const int first = split * p.bricks_a_block, last = min(first + p.bricks_a_block, p.column_bricks);
  const int num_here = min(kRows, p.row_bricks - row_brick);

  uint32_t words[kAhead][kRows][Code::kWords] = {};
  constexpr int kBrickWords = Code::kWords * kLanes;
  const int row_words = p.column_bricks * kBrickWords;
  const uint32_t* next = p.words + static_cast<int64_t>(row_brick) * row_words + (first + warp) * kBrickWords;
  int bricks_to_load = last - first - warp;  // times kWarps of them
  const auto load = [&](uint32_t(&to)[kRows][Code::kWords]) {
#ifdef NO_LOAD
    for (int r = 0; r < kRows; ++r) for (int i = 0; i < Code::kWords; ++i) to[r][i] = lane * r + bricks_to_load;
    bricks_to_load -= kWarps;
    return;
#endif
    if (bricks_to_load > 0) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (r < num_here) load_brick<kBits>(to[r], next + r * row_words, lane);
    }
    next += kWarps * kBrickWords;
    bricks_to_load -= kWarps;
  };
#pragma unroll
  for (int u = 0; u < kAhead; ++u)
    load(words[u]);

  // Scales (and zeros) of the block: [row brick][group][8 pairs].
  const int first_group = (4 * first) >> p.group_shift, groups = p.groups_a_block;
  uint32_t* const scales = shared;
  uint16_t* const zeros = reinterpret_cast<uint16_t*>(shared + kRows * groups * 8);
  for (int i = static_cast<int>(threadIdx.x); i < num_here * groups * 8; i += kThreads) {
    const int r = i / (groups * 8), in_row = i % (groups * 8);
    const bool inside = first_group * 8 + in_row < p.groups * 8;  // of the matrix; what fills it up is 0 times 0
    const int64_t from = (static_cast<int64_t>(row_brick + r) * p.groups + first_group) * 8 + in_row;
    scales[i] = inside ? __ldg(p.scales + from) : 0;
    if constexpr (kZeros) zeros[i] = inside ? __ldg(p.zeros + from) : uint16_t{0};
  }
  asm volatile("griddepcontrol.wait;" ::: "memory");  // weights do not depend on what ran before; x does
  constexpr bool kReadsAhead = kBlocks == 1;  // else other warps compute meanwhile
  uint32_t x[kN][16];
  const auto read_x = [&](int brick) {
#pragma unroll
    for (int n = 0; n < kN; ++n) load_x(x[n], p, brick, n, lane);
  };
  if (kReadsAhead) read_x(first + warp);
  __syncthreads();

  float total[kRows][kN][4] = {};
  for (int begin = first + warp; begin < last; begin += kAhead * kWarps) {
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int brick = begin + u * kWarps;
      if (brick >= last) break;
      if (!kReadsAhead) read_x(brick);
      uint32_t b[kN][16];
      for_each<16>([&](auto pair) {
        constexpr int kI = decltype(pair)::value;
        using Two = typename Pair<T>::Two;
        constexpr float kScale = 1.f / (1 << Code::template kPosition<kI>);
        for (int n = 0; n < kN; ++n)
          b[n][kI] = kScale == 1 ? x[n][kI]
                                 : bits_as<uint32_t>(__hmul2(bits_as<Two>(x[n][kI]), Pair<T>::both(kScale)));
      });
      if (kReadsAhead) read_x(brick + kWarps);
      // What is the same for all rows of a segment group: sums of magic x 2^-p (c0, c1) and of x (c2, c3).
      float of_x[4 / kSegments][kN][4] = {};
      for_each<8>([&](auto tile) {
        constexpr int t = decltype(tile)::value;
        const auto power = [](int position) { return bits_as<uint32_t>(Pair<T>::both(static_cast<float>(1 << position))); };
        const uint32_t a[4] = {Pair<T>::kMagic, power(Code::template kPosition<2 * t>), Pair<T>::kMagic,
                               power(Code::template kPosition<2 * t + 1>)};
#pragma unroll
        for (int n = 0; n < kN; ++n) multiply_add<T>(of_x[t / 2 / kSegments][n], a, b[n][2 * t], b[n][2 * t + 1]);
      });
      uint32_t now[kRows][Code::kWords];
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int i = 0; i < Code::kWords; ++i) now[r][i] = words[u][r][i];
      load(words[u]);
      const int group_of_brick = (((4 * brick) >> p.group_shift) - first_group) * 8 + g;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        for_each<4 / kSegments>([&](auto group) {
          constexpr int kGroup = decltype(group)::value;
          const int at = group_of_brick + (r * groups + kGroup) * 8;
          const float2 scale = scale_pair(scales[at], p.scales_are_half);
          float2 zero{p.zero, p.zero};
          if constexpr (kZeros) zero = {static_cast<float>(zeros[at] & 0xff), static_cast<float>(zeros[at] >> 8)};
          float part[kN][4];
#pragma unroll
          for (int n = 0; n < kN; ++n) {
            const float(&s)[4] = of_x[kGroup][n];
            part[n][0] = -(s[0] + zero.x * s[2]), part[n][1] = -(s[1] + zero.x * s[3]);
            part[n][2] = -(s[0] + zero.y * s[2]), part[n][3] = -(s[1] + zero.y * s[3]);
          }
#ifdef NO_COMPUTE
          for (int i = 0; i < Code::kWords; ++i) part[0][i % 4] += __uint_as_float(now[r][i]);
          if (false)
#endif
          for_each<2 * kSegments>([&](auto in_group) {
            constexpr int t = 2 * kSegments * kGroup + decltype(in_group)::value;
            const uint32_t a[4] = {Code::template pair<0, 2 * t>(now[r]), Code::template pair<1, 2 * t>(now[r]),
                                   Code::template pair<0, 2 * t + 1>(now[r]), Code::template pair<1, 2 * t + 1>(now[r])};
#pragma unroll
            for (int n = 0; n < kN; ++n) multiply_add<T>(part[n], a, b[n][2 * t], b[n][2 * t + 1]);
          });
#pragma unroll
          for (int n = 0; n < kN; ++n) {
            total[r][n][0] += scale.x * part[n][0], total[r][n][1] += scale.x * part[n][1];
            total[r][n][2] += scale.y * part[n][2], total[r][n][3] += scale.y * part[n][3];
          }
        });
      }
    }
  }

  // Sums over the warps. [warp][row of x][16 kRows]
  const int m = p.num_x_rows, outputs = kRows * kBrickRows;
  float* const parts = reinterpret_cast<float*>(shared + (kZeros ? kRows * groups * 12 : kRows * groups * 8));
  float* const mine = parts + warp * m * outputs;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int x_row = 8 * n + 2 * (lane % 4) + i % 2;
        if (x_row < m) mine[x_row * outputs + r * kBrickRows + g + 8 * (i / 2)] = total[r][n][i];
      }
  __syncthreads();
  
  for (int i = static_cast<int>(threadIdx.x); i < m * outputs; i += kThreads) {
    float sum = parts[i];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) sum += parts[w * m * outputs + i];
    parts[i] = sum;  // read by this thread alone
  }
  if (p.splits > 1) cg::this_cluster().sync();
  if (split == 0) {
    for (int i = static_cast<int>(threadIdx.x); i < m * outputs; i += kThreads) {
      const int row = row_brick * kBrickRows + i % outputs;
      if (row >= p.num_rows) continue;
      float sum = parts[i];
      for (int s = 1; s < p.splits; ++s) sum += cg::this_cluster().map_shared_rank(parts, s)[i];
      sum *= p.step;
      const int64_t at = static_cast<int64_t>(i / outputs) * p.num_rows + row;
      if (p.bias) sum += static_cast<float>(p.bias[row]);
      if (p.residual) sum += static_cast<float>(p.residual[at]);
      p.y[at] = static_cast<T>(sum);
    }
  }
  if (p.splits > 1) cg::this_cluster().sync();  // the first one has read the others' memory
}

void require(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("packed_decode: ") + cudaGetErrorString(status));
}

template <int kBits, class T, bool kZeros, int kSegments, int kN, int kRows, int kAhead, int kWarps, int kBlocks>
void launch(const DecodeArgs& args, int splits, CUstream_st* stream) {
  const PackedShape& shape = args.w.shape;
  Params<T> p{};
  p.words = args.w.words;
  p.scales = static_cast<const uint32_t*>(args.w.scales);
  p.zeros = reinterpret_cast<const uint16_t*>(args.w.zeros);
  p.x = static_cast<const T*>(args.x);
  p.y = static_cast<T*>(args.y);
  p.bias = static_cast<const T*>(args.bias);
  p.residual = static_cast<const T*>(args.residual);
  p.num_x_rows = args.num_rows;
  p.num_rows = static_cast<int>(shape.num_rows);
  p.num_columns = static_cast<int>(shape.num_columns);
  p.row_bricks = static_cast<int>(shape.row_bricks());
  p.column_bricks = static_cast<int>(shape.column_bricks());
  p.splits = std::min(splits, p.column_bricks);
  p.bricks_a_block = (p.column_bricks + p.splits - 1) / p.splits;
  p.groups = static_cast<int>(shape.num_groups());
  p.group_shift = 0;
  while ((int64_t{32} << p.group_shift) < shape.group_size) ++p.group_shift;
  if (p.groups == 1) p.group_shift = 30;
  p.groups_a_block = p.groups == 1 ? 1 : ((4 * p.bricks_a_block - 1) >> p.group_shift) + 2;
  p.step = static_cast<float>(args.w.step);
  p.zero = static_cast<float>(args.w.zero) / p.step;
  p.scales_are_half = args.w.scale_dtype == Half::kFloat16;
  const auto kernel = decode_kernel<kBits, T, kZeros, kSegments, kN, kRows, kAhead, kWarps, kBlocks>;
  const size_t shared = sizeof(uint32_t) * kRows * p.groups_a_block * (kZeros ? 12 : 8) +
                        sizeof(float) * kWarps * args.num_rows * kRows * kBrickRows;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(p.splits), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = {static_cast<unsigned>((p.row_bricks + kRows - 1) / kRows * p.splits), 1, 1};
  config.blockDim = {32 * kWarps, 1, 1};
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = p.splits > 1 ? 2 : 1;
  require(cudaLaunchKernelEx(&config, kernel, p));
}

}  // namespace

}  // namespace satin::kernels
