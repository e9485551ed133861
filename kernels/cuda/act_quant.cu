// Dynamic fake quantization and codes of act_quant.h: a row is read once.
//
// A team of threads owns a row: part of a warp for short rows (KV-cache heads), some warps of the block or all of it
// for long ones. A thread holds up to kHeld vectors of its row from the search of the largest to the rounding; what a
// row has beyond (8192 values in vectors of 8) is read again, from the cache.
//
// With a correctly rounded division for each value it was bound by instructions, not bytes: 26 a value on sm_90, 4096 x
// 4096 in 35 us, whose 50 MB take 12. quick_levels needs 6: a product with the reciprocal decides all but the few
// quotients beside a half.
#include "kernels/cuda/act_quant_device.cuh"
#include "kernels/packed_a8.h"

namespace satin::kernels {
namespace {

enum class Output { kValues, kCodes, kA8Codes };

struct DynamicItem {
  const void* x;
  void* out;               ///< values in x's dtype, or codes
  void* scale;             ///< written with codes
  void* values = nullptr;  ///< beside kA8Codes, or null
  int64_t num_rows = 0;
  int num_columns = 0, log2_team = 0;
  double top = 0;
};

/// Threads a row: two vectors for each (all that it holds where there are rows enough to fill the device), more where
/// the block has no more threads.
int log2_team(Extent extent, int vector) {
  static_assert(kThreads == 1 << 8);
  const int64_t a_thread = (extent.num_rows < 1024 ? 2 : kHeld) * int64_t{vector};
  int log2 = 0;
  while (log2 < 8 && (a_thread << log2) < extent.num_columns) ++log2;
  return log2;
}

/// The team's largest, for all of its threads. Called by every thread of the block, once a kernel.
template <class Bits>
__device__ __forceinline__ Bits team_largest(Bits value, int team) {
  for (int offset = (team < kWarp ? team : kWarp) / 2; offset > 0; offset /= 2)
    value = larger(value, __shfl_xor_sync(0xffffffffu, value, offset));
  if (team <= kWarp) return value;
  __shared__ Bits warps[kThreads / kWarp];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, team_warps = team / kWarp;
  if (threadIdx.x % kWarp == 0) warps[warp] = value;
  __syncthreads();
  for (int i = 0; i < team_warps; ++i) value = larger(value, warps[(warp & -team_warps) + i]);
  return value;
}

/// Eight columns' codes of a row in packed_a8.h's order, which swaps the middle two of four: two words. `shifted` as
/// quick_levels leaves them.
__device__ __forceinline__ void store_a8(uint8_t* row, int64_t column, const float (&shifted)[8]) {
#pragma unroll
  for (int f = 0; f < 2; ++f) {
    const float* four = shifted + 4 * f;
    store_pack<1>(reinterpret_cast<uint32_t*>(row + a8_place(column + 4 * f)),
                  Pack<uint32_t, 1>{low_bytes(four[0], four[2], four[1], four[3])});
  }
}
__device__ __forceinline__ void store_a8(uint8_t* row, int64_t column, const Pack<uint8_t, 8>& codes) {
#pragma unroll
  for (int f = 0; f < 2; ++f) {
    Pack<uint8_t, 4> four;
#pragma unroll
    for (int j = 0; j < 4; ++j) four.values[a8_place(j) % 4] = codes.values[4 * f + j];
    store_pack<4>(row + a8_place(column + 4 * f), four);
  }
}

template <bool kFloat8, Output kOutput, class X, int V>
__global__ void __launch_bounds__(kThreads) dynamic_kernel(const DynamicItem item) {
  using C = Compute<X>;
  constexpr bool kCodes = kOutput != Output::kValues;
  using Out = std::conditional_t<kCodes, uint8_t, X>;
  const int team = 1 << item.log2_team, lane = static_cast<int>(threadIdx.x) & (team - 1);
  const int64_t teams = kThreads >> item.log2_team;
  const int64_t row = blockIdx.x * teams + (static_cast<int>(threadIdx.x) >> item.log2_team);
  const bool active = row < item.num_rows;  // every thread of the block takes part in the search
  const int columns = active ? item.num_columns : 0, step = team * V, first = lane * V;
  const X* __restrict__ x = static_cast<const X*>(item.x) + (active ? row : 0) * item.num_columns;
  const int64_t out_columns = kOutput == Output::kA8Codes ? a8_row_bytes(item.num_columns) : item.num_columns;
  Out* __restrict__ out = static_cast<Out*>(item.out) + (active ? row : 0) * out_columns;

  Pack<X, V> held[kHeld];
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int i = first + k * step;
    held[k] = i < columns ? load_pack<V>(x + i) : Pack<X, V>{};
  }
  Magnitude<C> largest = 0;
  const auto search = [&](const Pack<X, V>& pack) { largest = largest_of(pack, largest); };
#pragma unroll
  for (int k = 0; k < kHeld; ++k) search(held[k]);
  for (int i = first + kHeld * step; i < columns; i += step) search(load_pack<V>(x + i));

  const C scale = dynamic_scale(team_largest(largest, team), static_cast<C>(item.top));
  const ActivationLevels<kFloat8, C> levels{static_cast<C>(item.top)};
  // Integers of vectors, the usual case. False, and nothing is written, where a division has to decide.
  constexpr bool kQuick = !kFloat8 && V % 4 == 0 && std::is_same_v<C, float>;
  [[maybe_unused]] const auto write_quickly = [&](const Divider<C>& divide, const Pack<X, V>& pack, int i) {
    if constexpr (kQuick) {
      float shifted[V];
      if (!quick_levels(pack, divide.reciprocal, shifted)) return false;
      if constexpr (kOutput == Output::kA8Codes) {
        store_a8(out, i, shifted);
      } else if constexpr (kCodes) {
        Pack<uint32_t, V / 4> words;
#pragma unroll
        for (int j = 0; j < V / 4; ++j)
          words.values[j] = low_bytes(shifted[4 * j], shifted[4 * j + 1], shifted[4 * j + 2], shifted[4 * j + 3]);
        store_pack<V / 4>(reinterpret_cast<uint32_t*>(out + i), words);
      }
      X* values = nullptr;
      if constexpr (kOutput == Output::kValues) values = out;
      if constexpr (kOutput == Output::kA8Codes) {
        if (item.values) values = static_cast<X*>(item.values) + row * item.num_columns;
      }
      if (!values) return true;
      Pack<X, V> result;
#pragma unroll
      for (int j = 0; j < V; ++j) result.values[j] = store_as<X>(scale * (shifted[j] - kIntegerShift));
      store_pack<V>(values + i, result);
    }
    return true;
  };
  const auto write = [&](const auto& divide, const Pack<X, V>& pack, int i) {
    Pack<Out, V> result;
    [[maybe_unused]] Pack<X, V> values;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const C level = levels.level(divide(load_as<C>(pack.values[j])));
      if constexpr (kOutput == Output::kA8Codes) values.values[j] = store_as<X>(scale * level);
      if constexpr (kCodes) {
        result.values[j] = levels.code(level);
      } else {
        result.values[j] = store_as<X>(scale * level);
      }
    }
    if constexpr (kOutput == Output::kA8Codes) {
      store_a8(out, i, result);
      if (item.values) store_pack<V>(static_cast<X*>(item.values) + row * item.num_columns + i, values);
    } else {
      store_pack<V>(out + i, result);
    }
  };
  const Divider<C> divide(scale);
  if (plain_division(divide)) {  // huge values and damaged rows
    for (int i = first; i < columns; i += step) write(PlainDivider<C>(scale), load_pack<V>(x + i), i);
  } else {
    [[maybe_unused]] unsigned again = 0;  // of the vectors held: a bit each
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      const int i = first + k * step;
      if (i >= columns) continue;
      if constexpr (kQuick) {
        if (!write_quickly(divide, held[k], i)) again |= 1u << k;
      } else {
        write(divide, held[k], i);
      }
    }
    for (int i = first; kQuick && again; again >>= 1, i += step)
      if (again & 1) write(divide, load_pack<V>(x + i), i);
    for (int i = first + kHeld * step; i < columns; i += step) {
      const Pack<X, V> pack = load_pack<V>(x + i);
      if (!kQuick || !write_quickly(divide, pack, i)) write(divide, pack, i);
    }
  }
  if constexpr (kOutput == Output::kA8Codes) {
    if (active)
      for (int64_t i = item.num_columns + first; i < out_columns; i += step) store_a8(out, i, Pack<Out, V>{});
  }
  if constexpr (kCodes) {
    if (active && lane == 0) static_cast<C*>(item.scale)[row] = scale;
  }
}

template <Output kOutput>
void launch_dynamic(ActivationFormat format, Extent extent, Dtype x_dtype, DynamicItem item, CUstream_st* stream) {
  check(format, extent);
  if (extent.num_rows == 0) return;
  item.num_rows = extent.num_rows;
  item.num_columns = static_cast<int>(extent.num_columns);
  item.top = top(format);
  for_vectors(x_dtype, extent.num_columns, {item.x, item.out}, [&]<class X, int V>() {
    if constexpr (kOutput != Output::kA8Codes || (V == kVector && !std::is_same_v<X, float>)) {
      item.log2_team = log2_team(extent, V);
      for_format(format, [&]<bool kFloat8>() {
        launch_kernel(dynamic_kernel<kFloat8, kOutput, X, V>, num_blocks(extent.num_rows, kThreads >> item.log2_team),
                      stream, item);
      });
    } else {
      throw std::invalid_argument("a8_codes: needs bfloat16 or half x of a multiple of 8 columns, aligned");
    }
  });
}

}  // namespace

void act_quant_cuda(ActivationFormat format, Extent extent, Dtype x_dtype, const void* x, void* out,
                    CUstream_st* stream) {
  launch_dynamic<Output::kValues>(format, extent, x_dtype, {x, out, nullptr}, stream);
  check_launch("act_quant_cuda");
}

void act_quant_codes_cuda(ActivationFormat format, Extent extent, Dtype x_dtype, const void* x, uint8_t* codes,
                          void* scale, CUstream_st* stream) {
  launch_dynamic<Output::kCodes>(format, extent, x_dtype, {x, codes, scale}, stream);
  check_launch("act_quant_codes_cuda");
}

void a8_codes_cuda(Extent extent, Dtype x_dtype, const void* x, uint8_t* codes, float* scales, void* values,
                   CUstream_st* stream) {
  launch_dynamic<Output::kA8Codes>(ActivationFormat::kInt8, extent, x_dtype, {x, codes, scales, values}, stream);
  check_launch("a8_codes_cuda");
}

}  // namespace satin::kernels
