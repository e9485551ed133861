// The block types of GGUF: how many integers and scales lie in how many bytes. No torch here.
//
// Every type is one formula over unsigned integers u of a few bits:
//   value = factor * (u - offset) - minimum
// with a factor (and a minimum) for each of `num_parts` equal runs of the block, made of 16-bit floats d, m and small
// integers sc, mn:
//   Q8_0 Q4_0 Q5_0 Q1_0 Q2_0 TQ1_0 TQ2_0   factor d                                    (Q1_0: u is 0 or 2)
//   Q4_1 Q5_1                              factor d, minimum -m
//   Q3_K Q6_K                              factor d * sc
//   Q2_K Q4_K Q5_K                         factor d * sc, minimum m * mn
// Source: the layouts of ggml (ggml-common.h); compared in tests with its Python reader and its own functions.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace satin::exporting::gguf {

enum class Type : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kQ1_0 = 41,
  kQ2_0 = 42,
};

constexpr int kMaxBlock = 256, kMaxParts = 16;

/// The scales of one block, general or as we write them: one d, every sc the same.
struct BlockScales {
  float d = 0, m = 0;       ///< 16-bit floats
  int16_t sc[kMaxParts]{};  ///< 1 where the type has none
  int16_t mn[kMaxParts]{};  ///< 0 where the type has none
};

struct BlockType {
  Type type;
  const char* name;
  int block;      ///< weights
  int bytes;      ///< of a block
  int num_parts;  ///< runs with a factor of their own; 0 for F32, F16 and BF16, which have no blocks
  int offset;
  void (*unpack)(const std::byte* block, uint8_t* integers);
  void (*pack)(const uint8_t* integers, std::byte* block);
  void (*get_scales)(const std::byte* block, BlockScales& scales);
  void (*put_scales)(const BlockScales& scales, std::byte* block);

  bool dense() const { return num_parts == 0; }
  double bits() const { return 8.0 * bytes / block; }  ///< a weight
};

/// All that are read and written, the smallest first.
std::span<const BlockType> block_types();
const BlockType& block_type(Type type);
/// nullptr: not one of them.
const BlockType* find_block_type(uint32_t id);
const BlockType* find_block_type(const std::string& name);
/// "IQ2_XXS (16)", of ids that are not read too.
std::string type_text(uint32_t id);

/// Values of one row by the format's own rule, in fp32. `row` has row.size() / bytes blocks, `out` as many weights.
void dequantize(const BlockType& type, std::span<const std::byte> row, std::span<float> out);

float half_to_float(uint16_t bits);
/// The float16 that is exactly `value`; nothing when there is none. NaN has none.
std::optional<uint16_t> exact_half(float value);

}  // namespace satin::exporting::gguf
