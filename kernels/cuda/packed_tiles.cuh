// What the products of many tokens share: tensor maps for the copy engine, the order of tiles, a lane's words of a
// brick in shared memory.
#pragma once
#include <cuda.h>
#include <cudaTypedefs.h>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/packed_device.cuh"

namespace satin::kernels {

inline PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    require(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result));
    if (result != cudaDriverEntryPointSuccess || !function)
      throw std::runtime_error("packed weight: the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return found;
}

struct Box {
  int64_t columns, rows;
};
inline CUtensorMap map_of(CUtensorMapDataType type, int item_bytes, const void* data, Box whole, Box box,
                          bool swizzled) {
  CUtensorMap map{};
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(whole.columns), static_cast<cuuint64_t>(whole.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(whole.columns * item_bytes)};
  const cuuint32_t boxes[2] = {static_cast<cuuint32_t>(box.columns), static_cast<cuuint32_t>(box.rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult status =
      encoder()(&map, type, 2, const_cast<void*>(data), dims, strides, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw std::runtime_error("packed weight: no tensor map: CUDA error " + std::to_string(status));
  return map;
}

constexpr int kSharedBytes = 227 * 1024;
constexpr int kRowsTogether = 8;  // row tiles that share tokens in the L2 cache

/// The first row of W and token of a tile of Y^T.
struct Tile {
  int row, token;
};
template <class S, class Params>
__device__ __forceinline__ Tile tile_of(const Params& p, int index) {
  const int a_band = kRowsTogether * p.token_tiles, band = index / a_band, in_band = index - band * a_band;
  const int rows = min(kRowsTogether, p.row_tiles - band * kRowsTogether);
  return {(band * kRowsTogether + in_band % rows) * S::kRows, in_band / rows * S::kTokens};
}

template <int kBits>
__device__ __forceinline__ void load_words(uint32_t (&words)[2 * kBits], uint32_t brick, int lane) {
  if constexpr (kBits == 1) {
    const uint2 v = load_shared2(brick + 8 * lane);
    words[0] = v.x, words[1] = v.y;
  } else {
#pragma unroll
    for (int i = 0; i < kBits / 2; ++i) {
      const uint4 v = load_shared4(brick + 16 * (i * kLanes + lane));
      words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
    }
    if constexpr (kBits == 3) {
      const uint2 v = load_shared2(brick + 16 * kLanes + 8 * lane);
      words[4] = v.x, words[5] = v.y;
    }
  }
}

/// Where a thread is in a ring of slots of shared memory.
template <int kSlots>
struct Position {
  int slot = 0;
  uint32_t round = 0;
  __device__ __forceinline__ void next() {
    if (++slot == kSlots) slot = 0, round ^= 1;
  }
};

/// A warpgroup's outputs of 16 bits, kTokens of [kStride] in shared memory of which 64 are rows of W -> p.y from
/// (first_token, first_row) on, what lies inside. thread: of the warpgroup.
template <int kTokens, int kStride, class Params>
__device__ __forceinline__ void store_outputs(const Params& p, uint32_t out, int first_token, int first_row,
                                              int thread) {
  const bool vectors = p.num_rows % 8 == 0;
#pragma unroll
  for (int i = 0; i < kTokens * 8 / 128; ++i) {
    const int at = i * 128 + thread, token = first_token + at / 8, first = first_row + at % 8 * 8;
    if (token >= p.num_tokens || first >= p.num_rows) continue;
    const uint4 v = load_shared4(out + at / 8 * kStride * 2 + at % 8 * 16);
    uint16_t* const y = p.y + static_cast<int64_t>(token) * p.num_rows + first;
    if (vectors) {
      *reinterpret_cast<uint4*>(y) = v;
    } else {
      const uint32_t all[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int j = 0; j < 8; ++j)
        if (first + j < p.num_rows) y[j] = static_cast<uint16_t>(all[j / 2] >> (16 * (j % 2)));
    }
  }
}

}  // namespace satin::kernels
