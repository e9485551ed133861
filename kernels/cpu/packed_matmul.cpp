// A brick is computed line by line (packed_lines.h): a slot's codes become floats and are multiplied with that slot's
// x. Sums of a part start at -zero * (sum of x), so that a part is sum(level x) / step; its scales then multiply it.
#include "kernels/packed_matmul.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/packed_lines.h"
#include "kernels/cpu/packed_scales.h"

namespace satin::kernels {
namespace {

template <int kWidth>
struct Vectors {
  typedef float Float __attribute__((vector_size(4 * kWidth)));
  typedef int32_t Int __attribute__((vector_size(4 * kWidth)));
  typedef uint32_t Word __attribute__((vector_size(4 * kWidth)));
  typedef uint64_t Two __attribute__((vector_size(4 * kWidth)));
};
template <class V, class T>
SATIN_INLINE V load(const T* from) {
  V v;
  memcpy(&v, from, sizeof(v));
  return v;
}
template <class V, class T>
SATIN_INLINE void store(T* to, const V& v) {
  memcpy(to, &v, sizeof(v));
}

/// Some rows of x, arranged: [column brick][variant][part] of { [slot of the part][row of x][16], sums [row of x][16]
/// }.
template <int kBits>
struct ArrangedX {
  using L = Lines<kBits>;
  static constexpr int kPartFloats = (L::kPartSlots + 1) * L::kElements;  ///< a row of x
  static constexpr int kBrickFloats = L::kVariants * L::kParts * kPartFloats;

  static void arrange(const PackedShape& shape, const float* x, int num_rows, float* to) {
    static constexpr auto kColumns = [] {
      struct {
        uint8_t of[L::kVariants][L::kParts][L::kPartSlots][L::kElements];
      } table{};
      for (int v = 0; v < L::kVariants; ++v)
        for (int s = 0; s < L::kSlots; ++s)
          for (int e = 0; e < L::kElements; ++e)
            table.of[v][L::part(s)][s / L::kParts][e] = static_cast<uint8_t>(L::column(L::line_of_variant(v), s, e));
      return table;
    }();
    for (int64_t brick = 0; brick < shape.column_bricks(); ++brick) {
      float of_brick[kBrickColumns] = {};
      const int64_t first = brick * kBrickColumns, count = std::min<int64_t>(kBrickColumns, shape.num_columns - first);
      for (int m = 0; m < num_rows; ++m) {
        memcpy(of_brick, x + m * shape.num_columns + first, static_cast<size_t>(count) * sizeof(float));
        for (int i = 0; i < L::kVariants * L::kParts; ++i) {
          float* part = to + (brick * kBrickFloats + i * kPartFloats) * num_rows;
          float sums[L::kElements] = {};
          for (int s = 0; s < L::kPartSlots; ++s)
            for (int e = 0; e < L::kElements; ++e) {
              const float value = of_brick[kColumns.of[i / L::kParts][i % L::kParts][s][e]];
              part[(s * num_rows + m) * L::kElements + e] = value;
              sums[e] += value;
            }
          memcpy(part + (L::kPartSlots * num_rows + m) * L::kElements, sums, sizeof(sums));
        }
      }
    }
  }
};

/// Values of a brick's segments, [segment][16] -> [part][line][scale of the line].
template <int kBits>
SATIN_INLINE void spread(const float* const (&of_segment)[kSegments], float* to) {
  using L = Lines<kBits>;
  const auto copy = [&]<int kI>(std::integral_constant<int, kI>) __attribute__((always_inline)) {
    constexpr int kPart = kI / (L::kLines * L::kScales), kLine = kI / L::kScales % L::kLines;
    constexpr int kE = L::element_with(kI % L::kScales), kRow = L::element(kLine, kE).row;
    to[kI] = of_segment[L::segment(kLine, kPart, kE)][kRow % 8 * 2 + kRow / 8];
  };
  [&]<int... kI>(std::integer_sequence<int, kI...>) __attribute__((always_inline)) {
    (copy(std::integral_constant<int, kI>{}), ...);
  }
  (std::make_integer_sequence<int, L::kParts * L::kLines * L::kScales>{});
}

/// The line's scales (two, or four with one bit) as elements [offset, offset + kWidth).
template <int kBits, int kWidth>
SATIN_INLINE typename Vectors<kWidth>::Float elements_of(const float* of_line, int offset) {
  using V = Vectors<kWidth>;
  const auto both = [](const float* two) __attribute__((always_inline)) {
    uint64_t bits;
    memcpy(&bits, two, sizeof(bits));
    return reinterpret_cast<typename V::Float>(bits + typename V::Two{});
  };
  typename V::Int order;
  if constexpr (Lines<kBits>::kPlaneBits == 2) {
    return both(of_line);
  } else if constexpr (Lines<kBits>::kScales == 2) {
    for (int e = 0; e < kWidth; ++e) order[e] = (e & ~3) | (e % 4 / 2);
    return __builtin_shuffle(both(of_line), order);
  } else if constexpr (kWidth == 16) {
    for (int e = 0; e < kWidth; ++e) order[e] = e < 8 ? e : e + 16;
    return __builtin_shuffle(both(of_line), both(of_line + 2), order);
  } else {
    return both(of_line + offset / 8 * 2);
  }
}

/// The high bits' words of a line of 3-bit codes: a code's is at the bit where its two low ones begin.
template <int kWidth>
SATIN_INLINE typename Vectors<kWidth>::Word high_words(const uint32_t* from) {
  using V = Vectors<kWidth>;
  typename V::Two pairs{}, order;  // of rows g and g + 8
  memcpy(&pairs, from, sizeof(pairs) / 2);
  for (int i = 0; i < kWidth / 2; ++i) order[i] = static_cast<uint64_t>(i / 2);
  typename V::Word shift{};
  for (int e = 0; e < kWidth; ++e) shift[e] = e % 4 / 2 * (high_place(0, 4).bit - high_place(0, 0).bit);
  return reinterpret_cast<typename V::Word>(__builtin_shuffle(pairs, order)) >> shift;
}

struct Block {
  const PackedMatmulArgs<float>* args;
  const float* x;         ///< arranged
  int64_t first_row;      ///< of x
  float *scales, *zeros;  ///< of a brick row
};

template <int kBits, int kWidth, int kM>
SATIN_INLINE void block_loop(const Block* block, int64_t begin, int64_t end) {
  using L = Lines<kBits>;
  static_assert(L::holds());
  using V = Vectors<kWidth>;
  using Float = typename V::Float;
  using Word = typename V::Word;
  constexpr int kE = L::kElements;
  static constexpr auto kRows = [] {
    struct {
      uint8_t of[L::kLines][L::kElements];
    } table{};
    for (int i = 0; i < L::kLines * kE; ++i)
      table.of[i / kE][i % kE] = static_cast<uint8_t>(L::element(i / kE, i % kE).row);
    return table;
  }();
  const PackedMatrix& w = block->args->w;
  const PackedShape shape = w.shape;
  const int64_t last_group = shape.num_groups() - 1;
  alignas(64) float total[L::kLines][kM][kE];
  alignas(64) float scales[L::kParts * L::kLines * L::kScales], zeros[L::kParts * L::kLines * L::kScales];

  for (int64_t row = begin; row < end; ++row) {
    memset(total, 0, sizeof(total));
    read_scales(w, row, block->scales, block->zeros);
    const uint32_t* words = w.words + row * shape.column_bricks() * shape.brick_words();
    int64_t group_before = -1;
    for (int64_t brick = 0; brick < shape.column_bricks(); ++brick, words += shape.brick_words()) {
      const float *of_segment[kSegments], *zero_of_segment[kSegments];
      int64_t group = 0;
      for (int s = 0; s < kSegments; ++s) {
        group = std::min((brick * kBrickColumns + s * kSegmentColumns) / shape.group_size, last_group);
        of_segment[s] = block->scales + group * kBrickRows;
        zero_of_segment[s] = block->zeros + group * kBrickRows;
      }
      if (of_segment[0] != of_segment[kSegments - 1] || group != group_before) {
        spread<kBits>(of_segment, scales);
        spread<kBits>(zero_of_segment, zeros);
        group_before = of_segment[0] == of_segment[kSegments - 1] ? group : -1;
      }
      const float* const x_of_brick = block->x + brick * ArrangedX<kBits>::kBrickFloats * kM;
      for (int line = 0; line < L::kLines; ++line) {
        const float* const x_of_variant =
            x_of_brick + L::variant(line) * L::kParts * ArrangedX<kBits>::kPartFloats * kM;
        for (int offset = 0; offset < kE; offset += kWidth) {
          const Word word = load<Word>(words + line * kE + offset);
          Word high{};
          if constexpr (kBits == 3)
            high = high_words<kWidth>(words + low_plane_words(kBits) + (line * kE + offset) / 2);
          Float sum[kM];
          for (int m = 0; m < kM; ++m) sum[m] = load<Float>(total[line][m] + offset);
#pragma GCC unroll 4
          for (int part = 0; part < L::kParts; ++part) {
            const float* const x = x_of_variant + part * ArrangedX<kBits>::kPartFloats * kM + offset;
            const int at = (part * L::kLines + line) * L::kScales;
            const Float scale = elements_of<kBits, kWidth>(scales + at, offset);
            const Float zero = elements_of<kBits, kWidth>(zeros + at, offset);
            Float level[kM];
            for (int m = 0; m < kM; ++m) level[m] = -zero * load<Float>(x + (L::kPartSlots * kM + m) * kE);
#pragma GCC unroll 8
            for (int s = 0; s < L::kPartSlots; ++s) {
              const int slot = part + s * L::kParts;
              Word code = word >> (slot * L::kPlaneBits) & ((1u << L::kPlaneBits) - 1);
              if constexpr (kBits == 3) code |= (high >> (slot * L::kPlaneBits) & 1u) << 2;
              const Float value = __builtin_convertvector(reinterpret_cast<typename V::Int>(code), Float);
              for (int m = 0; m < kM; ++m) level[m] += value * load<Float>(x + (s * kM + m) * kE);
            }
            for (int m = 0; m < kM; ++m) sum[m] += scale * level[m];
          }
          for (int m = 0; m < kM; ++m) store(total[line][m] + offset, sum[m]);
        }
      }
    }
    for (int m = 0; m < kM; ++m) {
      float sums[kBrickRows] = {};
      for (int line = 0; line < L::kLines; ++line)
#pragma GCC unroll 16
        for (int e = 0; e < kE; ++e) sums[kRows.of[line][e]] += total[line][m][e];
      const PackedMatmulArgs<float>& a = *block->args;
      for (int64_t r = 0; r < std::min<int64_t>(kBrickRows, shape.num_rows - row * kBrickRows); ++r) {
        const int64_t n = row * kBrickRows + r, at = (block->first_row + m) * shape.num_rows + n;
        float y = sums[r];
        if (a.bias) y += a.bias[n];
        if (a.residual) y += a.residual[at];
        a.y[at] = y;
      }
    }
  }
}

template <int kBits, int kM>
void run_block(const PackedMatmulArgs<float>& args, Block block, float* arranged, int64_t begin, int64_t end,
               int most_floats) {
  ArrangedX<kBits>::arrange(args.w.shape, args.x + block.first_row * args.w.shape.num_columns, kM, arranged);
  block.x = arranged;
  run_widest_vectors<block_loop<kBits, 16, kM>, block_loop<kBits, 8, kM>, block_loop<kBits, 4, kM>>(
      most_floats, static_cast<const Block*>(&block), begin, end);
}

}  // namespace

void packed_matmul_cpu(const PackedMatmulArgs<float>& args, int64_t brick_row_begin, int64_t brick_row_end,
                       int most_floats) {
  const PackedShape& shape = args.w.shape;
  const auto group_floats = static_cast<size_t>(shape.num_groups() * kBrickRows);
  std::vector<float> scales(group_floats), zeros(group_floats);
  for_bits(shape.bits, [&]<int kBits>() {
    std::vector<float> x(static_cast<size_t>(shape.column_bricks() * ArrangedX<kBits>::kBrickFloats *
                                             std::min<int64_t>(args.num_rows, 4)));
    Block block{&args, nullptr, 0, scales.data(), zeros.data()};
    const auto run = [&]<int kM>() {
      run_block<kBits, kM>(args, block, x.data(), brick_row_begin, brick_row_end, most_floats);
      block.first_row += kM;
    };
    while (block.first_row < args.num_rows) {
      const int64_t left = args.num_rows - block.first_row;
      if (left >= 4)
        run.template operator()<4>();
      else if (left >= 2)
        run.template operator()<2>();
      else
        run.template operator()<1>();
    }
  });
}

}  // namespace satin::kernels
