// Five to sixteen rows of x (bfloat16) times a packed weight.
//
// Codes become bfloat16 numbers without a conversion: a code that is put into the mantissa of 2^7 at bit p is
// 2^7 + 2^p code. With x 2^-p as the other operand of mma.m16n8k16, a sum is sum (2^(7-p) x) + sum (code x), of which
// the first depends on x alone: it is computed once for all rows, with the sum of x that a zero point takes off, and
// taken off where sums begin. All numbers are exact, sums are fp32. 8-bit codes are two of 4 bits.
// Blocks, reading ahead and sums over warps as in packed_decode.cu.
// Source: the numbers, Kim et al. 2022 (arXiv 2211.10017); their sum apart is ours.
#include "kernels/cuda/packed_device.cuh"
#include "kernels/cuda/packed_numbers.cuh"

namespace satin::kernels {
namespace {

constexpr int kTiles = 2;  ///< of 8 rows of x

/// x of a brick's columns: [segment][columns 8 q + 0 1, 2 3, 4 5, 6 7], of row 8 tile + g; zeros outside.
__device__ __forceinline__ void load_x(uint32_t (&x)[4][4], const PackedParams& p, int brick, int tile, int g, int q) {
  const int row = 8 * tile + g;
#pragma unroll
  for (int s = 0; s < 4; ++s) {
    const int column = brick * kBrickColumns + 32 * s + 8 * q;
    uint4 v{};
    if (row < p.num_x_rows && column < p.num_columns)
      v = __ldg(reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(p.x) +
                                               static_cast<int64_t>(row) * p.num_columns + column));
    x[s][0] = v.x, x[s][1] = v.y, x[s][2] = v.z, x[s][3] = v.w;
  }
}

template <int kBits, int kSegments, int kRows, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, 16 / kWarps) skinny_kernel(const PackedParams p) {
  using Number = Numbers<kBits>;
  constexpr int kGroups = 4 / kSegments;
  let_dependents_start();
  float* const parts = launched_shared<float>();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kLanes, lane = thread % kLanes, g = lane / 4,
            q = lane % 4, m = p.num_x_rows, row_brick = static_cast<int>(blockIdx.x) * kRows;
  BrickReader<kBits, kSegments, kRows, kWarps> reader(p, row_brick, warp, lane);
  auto ahead = reader.next();
  wait_for_dependencies();

  float total[kRows][kTiles][4] = {};
  for (int brick = warp; brick < p.column_bricks; brick += kWarps) {
    uint32_t x[kTiles][4][4];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) load_x(x[n], p, brick, n, g, q);
    const auto now = ahead;
    ahead = reader.next();
    // Of each group, for all rows: sums of magic x 2^-p (c0, c1) and of x (c2, c3).
    float of_x[kGroups][kTiles][4] = {};
    for_each<4>([&](auto segment) {
      constexpr int s = decltype(segment)::value, p_of_s = Number::position(s);
      const uint32_t power = bits_as<uint32_t>(both(static_cast<float>(1 << p_of_s)));
      const uint32_t a[4] = {kMagic, power, kMagic, power};
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        if constexpr (p_of_s > 0)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            x[n][s][i] =
                bits_as<uint32_t>(__hmul2(bits_as<Two>(x[n][s][i]), both(1.f / static_cast<float>(1 << p_of_s))));
#pragma unroll
        for (int half = 0; half < 2; ++half) multiply_add(of_x[s / kSegments][n], a, x[n][s][half], x[n][s][2 + half]);
      }
    });
    for_each<kGroups>([&](auto group) {
      constexpr int kGroup = decltype(group)::value;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const auto [scale, zero] = now.scale_and_zero(p, r, kGroup, g);
        float part[Number::kParts][kTiles][4];
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          const float(&s)[4] = of_x[kGroup][n];
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            part[0][n][i] = -(s[i] + zero.x * s[2 + i]);
            part[0][n][2 + i] = -(s[i] + zero.y * s[2 + i]);
            if constexpr (Number::kParts == 2) part[1][n][i] = part[1][n][2 + i] = -s[i];
          }
        }
        for_each<2 * kSegments * Number::kParts>([&](auto index) {
          constexpr int kIndex = decltype(index)::value, kPart = kIndex / (2 * kSegments);
          constexpr int s = kGroup * kSegments + kIndex % (2 * kSegments) / 2, kHalf = kIndex % 2;
          const uint32_t a[4] = {Number::template pair<s, 0, 0, kHalf, kPart>(now.words[r]),
                                 Number::template pair<s, 1, 0, kHalf, kPart>(now.words[r]),
                                 Number::template pair<s, 0, 1, kHalf, kPart>(now.words[r]),
                                 Number::template pair<s, 1, 1, kHalf, kPart>(now.words[r])};
#pragma unroll
          for (int n = 0; n < kTiles; ++n) multiply_add(part[kPart][n], a, x[n][s][kHalf], x[n][s][2 + kHalf]);
        });
#pragma unroll
        for (int n = 0; n < kTiles; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float sum = part[0][n][i];
            if constexpr (Number::kParts == 2) sum += 16 * part[1][n][i];
            total[r][n][i] += (i < 2 ? scale.x : scale.y) * sum;
          }
      }
    });
  }
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (const int row = 8 * n + 2 * q + i; row < m)
#pragma unroll
        for (int r = 0; r < kRows; ++r) put_sums<kRows>(parts, m, warp, row, r, g, total[r][n][i], total[r][n][2 + i]);
  add_and_store<kRows, kWarps>(p, parts, row_brick, [](int) { return 1.f; });
}

template <int kBits, int kSegments, int kRows, int kWarps>
void launch(const PackedParams& p, CUstream_st* stream) {
  launch_early(skinny_kernel<kBits, kSegments, kRows, kWarps>, (p.row_bricks + kRows - 1) / kRows, 32 * kWarps,
               static_cast<int>(sizeof(float)) * kWarps * p.num_x_rows * kRows * kBrickRows, p, stream);
}

}  // namespace

void packed_skinny_cuda(const DecodeArgs& args, CUstream_st* stream) {
  const PackedParams p = params_of(args);
  for_bits_and_group(args.w.shape.bits, p.group_shift, [&](auto bits, auto segments) {
    constexpr int kBits = decltype(bits)::value, kSegments = decltype(segments)::value;
    for_tile<num_decode_tiles(kBits == 8 || kSegments == 1, true)>(args, [&](auto rows, auto warps) {
      launch<kBits, kSegments, decltype(rows)::value, decltype(warps)::value>(p, stream);
    });
  });
}

}  // namespace satin::kernels
