// 16 keys and their values as a warp of cached_attention.cu has them, and what it computes of them on tensor cores.
//
// Scores are up to eight query heads (rows g of operand A) by 8 keys; averages are features by heads, so that scores
// are where weights are wanted, and values, of two keys put together by halves, take no row that has no number.
// Features stand in an order in which a lane's are next to each other in memory: keys go from the cache to the tensor
// cores as they lie. Lane 4 g + q, as in the tensor cores' fragments.
//
// Source: Dao et al. 2023 (FlashAttention-2); PTX ISA 8.0, 9.7.13 (fragments of mma).
#pragma once
#include "kernels/cuda/cached_rows.cuh"

namespace satin::kernels {

constexpr int kTileKeys = 16;
constexpr int kMostHeads = 8;  ///< of a product

/// What a lane holds of the rows: of keys g and 8 + g the eighths 4 i + q of 8 features each (as far as there are
/// features), of the values of 2 q, 2 q + 1 and 8 on the eighths 8 i + g.
template <int kFeatures, Stored kStored>
struct KeyTile {
  static constexpr int kBits = kBitsOf<kStored>, kRowBytes = kFeatures * kBits / 8;
  static constexpr int kKeyBytes = kBits, kKeyPieces = kFeatures / 32;
  static constexpr int kOfValue = kFeatures < 64 ? 4 : 8;  ///< features of a piece
  static constexpr int kValueBytes = kOfValue * kBits / 8, kValuePieces = kFeatures / 8 / kOfValue;
  static constexpr int kKeyWords = kKeyBytes / 4, kValueWords = kValueBytes < 4 ? 1 : kValueBytes / 4;  ///< of a piece
  uint32_t keys[2][kKeyPieces * kKeyWords] = {};
  uint32_t values[4][kValuePieces * kValueWords] = {};
  uint32_t key_scales[2] = {}, value_scales[4] = {};  ///< of integers

  static __device__ __forceinline__ int value_row(int j) { return j / 2 * 8 + j % 2; }  ///< and 2 q

  /// Where a lane reads the next tile's.
  class Reader {
   public:
    __device__ __forceinline__ Reader(const HeadRows& rows, int64_t first, int lane_bytes)
        : from_(reinterpret_cast<const char*>(rows.words) + first * kRowBytes + lane_bytes),
          scales_(reinterpret_cast<const uint32_t*>(rows.scales) + first) {}
    /// Of row number `row` from here, kBytes from `bytes_on` on.
    template <int kBytes>
    __device__ __forceinline__ void load(bool is_here, int row, int bytes_on, uint32_t* to) const {
      load_row_if<kBytes>(is_here, to, from_ + row * kRowBytes + bytes_on);
    }
    __device__ __forceinline__ void load_scale(bool is_here, int row, uint32_t& to) const {
      if constexpr (kStored != Stored::kNumbers) load_if(is_here, to, scales_ + row);
    }
    __device__ __forceinline__ void advance(int rows) {
      from_ += static_cast<int64_t>(rows) * kRowBytes;
      scales_ += rows;
    }

   private:
    const char* from_;
    const uint32_t* scales_;
  };
  static __device__ __forceinline__ Reader key_reader(const HeadRows& rows, int tile, int g, int q) {
    return {rows, static_cast<int64_t>(tile) * kTileKeys + g, q * kKeyBytes};
  }
  static __device__ __forceinline__ Reader value_reader(const HeadRows& rows, int tile, int g, int q) {
    return {rows, static_cast<int64_t>(tile) * kTileKeys + 2 * q, g * kValueBytes};
  }

  /// Of a tile of `left` rows or more. What is not there stays what it is.
  __device__ __forceinline__ void load_keys(const Reader& from, int left, int g) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const bool is_here = 8 * j + g < left;
#pragma unroll
      for (int i = 0; i < kKeyPieces; ++i)
        from.template load<kKeyBytes>(is_here, 8 * j, 4 * i * kKeyBytes, keys[j] + i * kKeyWords);
      from.load_scale(is_here, 8 * j, key_scales[j]);
    }
  }
  __device__ __forceinline__ void load_values(const Reader& from, int left, int q) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const bool is_here = value_row(j) + 2 * q < left;
#pragma unroll
      for (int i = 0; i < kValuePieces; ++i)
        from.template load<kValueBytes>(is_here, value_row(j), 8 * i * kValueBytes, values[j] + i * kValueWords);
      from.load_scale(is_here, value_row(j), value_scales[j]);
    }
  }

  /// What integers stand for.
  template <bool kHalf>
  __device__ __forceinline__ void keys_to_numbers(KeyTile<kFeatures, Stored::kNumbers>& to) const {
    rows_to_numbers<8, kHalf>(keys, key_scales, to.keys);
  }
  template <bool kHalf>
  __device__ __forceinline__ void values_to_numbers(KeyTile<kFeatures, Stored::kNumbers>& to) const {
    rows_to_numbers<kOfValue, kHalf>(values, value_scales, to.values);
  }

  /// Of numbers: key `at` of the tile is the new one, of shared memory; values after it are zeros.
  __device__ __forceinline__ void insert(const uint16_t* new_key, const uint16_t* new_value, int at, int g, int q) {
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int i = 0; i < kKeyPieces; ++i)
        load_shared_if<kKeyWords>(8 * j + g == at, keys[j] + i * kKeyWords, new_key + 8 * (4 * i + q));
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = value_row(j) + 2 * q;
#pragma unroll
      for (int i = 0; i < kValuePieces * kValueWords; ++i) values[j][i] = row > at ? 0 : values[j][i];
#pragma unroll
      for (int i = 0; i < kValuePieces; ++i)
        load_shared_if<kValueWords>(row == at, values[j] + i * kValueWords, new_value + kOfValue * (8 * i + g));
    }
  }

 private:
  /// kOf: features of a piece; of numbers two are a word.
  template <int kOf, bool kHalf, int kRows, int kFromWords, int kToWords>
  static __device__ __forceinline__ void rows_to_numbers(const uint32_t (&from)[kRows][kFromWords],
                                                         const uint32_t (&scales)[kRows],
                                                         uint32_t (&to)[kRows][kToWords]) {
    constexpr int kPieces = kToWords / (kOf / 2), kWords = kFromWords / kPieces;
#pragma unroll
    for (int j = 0; j < kRows; ++j)
#pragma unroll
      for (int i = 0; i < kPieces; ++i)
        numbers_of<kOf, kHalf, kStored>(from[j] + i * kWords, __uint_as_float(scales[j]), to[j] + i * (kOf / 2));
  }
};

/// A warp's running softmax of up to eight heads: a lane has scores of head g, and averages of heads 2 q and 2 q + 1.
///
/// Weights are powers of two over `base`, which is no maximum: it follows when scores are above it by more than a
/// factor of 2^8, so that lanes seldom have to agree on a new one. What is fused is written so: left to the compiler it
/// might differ between formats.
template <int kFeatures, bool kHalf>
struct RunningHeads {
  using Tile = KeyTile<kFeatures, Stored::kNumbers>;
  static constexpr int kWords = kFeatures / 16;  ///< of a value
  static constexpr float kRoot = kFeatures == 32    ? .176776695f
                                 : kFeatures == 64  ? .125f
                                 : kFeatures == 128 ? .0883883476f
                                                    : .0625f;
  static constexpr float kUnit = kRoot * 1.44269504f;  ///< exponents of two are scores times this
  static constexpr float kSlack = 8 / kUnit;
  float base = -INFINITY, total = 0;  ///< total: a lane's part
  float average[kWords][4] =
      {};  ///< of word t of a lane's values: heads 2 q and 2 q + 1 of its first feature, its second

  /// Scores of keys 2 q, 2 q + 1 and 8 on; of keys after `last` none.
  /// query(i): words 0, 2, 1, 3 of its eighth 4 i + q. Words 0 and 1 are rows g of operand A, 2 and 3 rows 8 + g: of a
  /// product with half of an eighth, half of the rows mean something.
  template <class Query>
  static __device__ __forceinline__ void score(const Tile& tile, const Query& query, int last, int q,
                                               float (&scores)[4]) {
    float parts[2][2][4] = {};
#pragma unroll
    for (int i = 0; i < Tile::kKeyPieces; ++i) {
      const uint4 words = query(i);
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          multiply_add<kHalf>(parts[j][half], words.x, words.y, words.z, words.w, tile.keys[j][4 * i + 2 * half],
                              tile.keys[j][4 * i + 2 * half + 1]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
      scores[i] =
          i / 2 * 8 + 2 * q + i % 2 <= last ? __fadd_rn(parts[i / 2][0][i % 2], parts[i / 2][1][2 + i % 2]) : -INFINITY;
  }

  /// Weights of the scores as operand B; their sum is of what they are rounded to.
  __device__ __forceinline__ uint2 weigh(const float (&scores)[4], int q) {
    const float most = fmaxf(fmaxf(scores[0], scores[1]), fmaxf(scores[2], scores[3]));
    if (__any_sync(~0u, most > base + kSlack)) raise(most, q);
    const float offset = -__fmul_rn(base, kUnit);
    uint32_t pairs[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      pairs[j] = narrow<kHalf>(power_of_two(fmaf(scores[2 * j], kUnit, offset)),
                               power_of_two(fmaf(scores[2 * j + 1], kUnit, offset)));
      const float2 rounded = pair_of(pairs[j], kHalf);
      total = __fadd_rn(__fadd_rn(total, rounded.x), rounded.y);
    }
    return {pairs[0], pairs[1]};
  }

  /// Adds the weighted values.
  __device__ __forceinline__ void add(const Tile& tile, uint2 weights) {
#pragma unroll
    for (int t = 0; t < kWords; ++t)
      multiply_add<kHalf>(average[t], __byte_perm(tile.values[0][t], tile.values[1][t], 0x5410),
                          __byte_perm(tile.values[0][t], tile.values[1][t], 0x7632),
                          __byte_perm(tile.values[2][t], tile.values[3][t], 0x5410),
                          __byte_perm(tile.values[2][t], tile.values[3][t], 0x7632), weights.x, weights.y);
  }

  /// The sum of all lanes of head g.
  __device__ __forceinline__ float whole_total() const {
    const float two = __fadd_rn(total, __shfl_xor_sync(~0u, total, 1));
    return __fadd_rn(two, __shfl_xor_sync(~0u, two, 2));
  }

 private:
  __device__ __forceinline__ void raise(float most, int q) {
    most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
    most = fmaxf(fmaxf(most, __shfl_xor_sync(~0u, most, 2)), base);
    const float kept = most == base ? 1 : power_of_two(__fmul_rn(base - most, kUnit));
    base = most;
    total *= kept;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float of_head = __shfl_sync(~0u, kept, 4 * (2 * q + h));
#pragma unroll
      for (int t = 0; t < kWords; ++t) average[t][h] *= of_head, average[t][2 + h] *= of_head;
    }
  }
};

}  // namespace satin::kernels
