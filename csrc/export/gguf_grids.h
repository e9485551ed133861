// Which grid of ours a GGUF block type holds exactly, and codes to blocks and back. Blocks are written from codes,
// scales and zero points: a reference quantizer would find scales of its own and destroy the grid.
//
// A weight is scale * level, level = step * code - zero (quant/codes.h). What a type's integers u are then:
//   levels   u = level + offset                      (d: the scale)
//   signed   the same, and for zero points of 2, u = offset - level (d: minus the scale): -2 ... 1 as -1 ... 2
//   codes    u = code, sc = step, mn = zero          (d and m: the scale)
//   affine   u = code, m = scale * zero              (d: the scale), where that product is a float16
// `levels` and `signed` do not say the zero points of asymmetric grids: they are stored beside (see gguf.h).
#pragma once
#include "export/gguf_blocks.h"
#include "quant/codes.h"

namespace satin::exporting::gguf {

/// What decides which types hold a weight [rows, columns].
struct WeightFacts {
  quant::Scheme scheme;
  int64_t rows = 0, columns = 0;
  int lowest_zero = 0, highest_zero = 0;
  int lowest_level = 0, highest_level = 0;
  bool affine = false;  ///< every scale is not 0, and every scale * zero is a float16
};

/// What is true of every weight of the scheme.
WeightFacts facts_of_all(const quant::Scheme& scheme, int64_t rows, int64_t columns);
/// What may be true of a weight of the scheme: the best case.
WeightFacts facts_of_some(const quant::Scheme& scheme, int64_t rows, int64_t columns);
/// What is true of this one.
WeightFacts facts_of(const quant::QuantizedWeight& weight);

/// Empty, or why blocks of this type do not hold such a weight's codes, scales and zero points. Types without blocks
/// hold no codes.
std::string refusal(const BlockType& type, const WeightFacts& facts);
/// Whether zero points have to be stored beside the blocks.
bool needs_zero_points(const BlockType& type, const quant::Scheme& scheme);
/// Bits a weight, with zero points that are stored beside.
double stored_bits(const BlockType& type, const WeightFacts& facts);
/// The smallest that holds it; nullptr: none.
const BlockType* smallest_type(const WeightFacts& facts);
/// "exact types: Q4_0 (4.5 bits), Q8_0 (8.5 bits); or train with group_size 256 for Q3_K (3.4375 bits)".
/// `wanted`: a type that refuses it, or nullptr.
std::string alternatives(const WeightFacts& facts, const BlockType* wanted);

/// Empty, or which scales are not float16 values.
std::string scales_refusal(const quant::QuantizedWeight& weight);

/// Rows [begin, end) as blocks, row by row. refusal() is empty for the weight. `rows`: (end - begin) * row bytes.
void write_blocks(const BlockType& type, const quant::QuantizedWeight& weight, int64_t begin, int64_t end,
                  std::span<std::byte> rows);

/// The inverse, of all rows: codes, scales in the scheme's dtype, zero points. `zero_points` [rows, groups] int32 is
/// defined where needs_zero_points. Throws UserError naming `where` for blocks that write_blocks does not write.
quant::QuantizedWeight read_blocks(const BlockType& type, const quant::Scheme& scheme, int64_t num_rows,
                                   int64_t num_columns, std::span<const std::byte> rows, const at::Tensor& zero_points,
                                   const std::string& where);

}  // namespace satin::exporting::gguf
