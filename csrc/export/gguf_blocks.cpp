// Blocks with one scale, and the table. Superblocks are in gguf_superblocks.cpp.
#include "export/gguf_blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "export/gguf_superblocks.h"

namespace satin::exporting::gguf {
namespace {

/// d at byte `At`.
template <int At>
void get_d(const std::byte* block, BlockScales& scales) {
  scales.d = load_half(block + At);
  scales.sc[0] = 1;
}
template <int At>
void put_d(const BlockScales& scales, std::byte* block) {
  store_half(scales.d, block + At);
}

/// d and what is added at bytes 0 and 2: minimum -m.
void get_d_m(const std::byte* block, BlockScales& scales) {
  scales.d = load_half(block);
  scales.m = -load_half(block + 2);
  scales.sc[0] = scales.mn[0] = 1;
}
void put_d_m(const BlockScales& scales, std::byte* block) {
  store_half(scales.d, block);
  store_half(-scales.m, block + 2);
}

/// Signed bytes behind d.
void unpack_q8_0(const std::byte* block, uint8_t* u) {
  for (int i = 0; i < 32; ++i) u[i] = byte_at(block, 2 + i) ^ 0x80;
}
void pack_q8_0(const uint8_t* u, std::byte* block) {
  for (int i = 0; i < 32; ++i) block[2 + i] = std::byte(u[i] ^ 0x80);
}

/// Nibbles from byte `At`: weight i low, weight i + 16 high; from `High` (0: none) a fifth bit each.
template <int At, int High>
void unpack_nibbles(const std::byte* block, uint8_t* u) {
  for (int i = 0; i < 16; ++i) {
    u[i] = byte_at(block, At + i) & 15;
    u[i + 16] = byte_at(block, At + i) >> 4;
  }
  if constexpr (High != 0)
    for (int i = 0; i < 32; ++i) u[i] |= (byte_at(block, High + i / 8) >> (i % 8) & 1) << 4;
}
template <int At, int High>
void pack_nibbles(const uint8_t* u, std::byte* block) {
  for (int i = 0; i < 16; ++i) block[At + i] = std::byte((u[i] & 15) | (u[i + 16] & 15) << 4);
  if constexpr (High != 0)
    for (int i = 0; i < 4; ++i) {
      int bits = 0;
      for (int j = 0; j < 8; ++j) bits |= (u[8 * i + j] >> 4) << j;
      block[High + i] = std::byte(bits);
    }
}

/// Eight signs a byte, the first lowest: u is 0 or 2.
void unpack_q1_0(const std::byte* block, uint8_t* u) {
  for (int i = 0; i < 128; ++i) u[i] = 2 * (byte_at(block, 2 + i / 8) >> (i % 8) & 1);
}
void pack_q1_0(const uint8_t* u, std::byte* block) {
  for (int i = 0; i < 16; ++i) {
    int bits = 0;
    for (int j = 0; j < 8; ++j) bits |= (u[8 * i + j] >> 1) << j;
    block[2 + i] = std::byte(bits);
  }
}

/// Four neighbours a byte, the first lowest.
void unpack_q2_0(const std::byte* block, uint8_t* u) {
  for (int i = 0; i < 64; ++i) u[i] = byte_at(block, 2 + i / 4) >> (2 * (i % 4)) & 3;
}
void pack_q2_0(const uint8_t* u, std::byte* block) {
  for (int i = 0; i < 16; ++i)
    block[2 + i] = std::byte(u[4 * i] | u[4 * i + 1] << 2 | u[4 * i + 2] << 4 | u[4 * i + 3] << 6);
}

constexpr BlockType kTypes[] = {
    {Type::kQ1_0, "Q1_0", 128, 18, 1, 1, unpack_q1_0, pack_q1_0, get_d<0>, put_d<0>},
    {Type::kTQ1_0, "TQ1_0", 256, 54, 1, 1, unpack_tq1_0, pack_tq1_0, get_d<52>, put_d<52>},
    {Type::kTQ2_0, "TQ2_0", 256, 66, 1, 1, unpack_tq2_0, pack_tq2_0, get_d<64>, put_d<64>},
    {Type::kQ2_0, "Q2_0", 64, 18, 1, 1, unpack_q2_0, pack_q2_0, get_d<0>, put_d<0>},
    {Type::kQ2_K, "Q2_K", 256, 84, 16, 0, unpack_q2_k, pack_q2_k, get_q2_k, put_q2_k},
    {Type::kQ3_K, "Q3_K", 256, 110, 16, 4, unpack_q3_k, pack_q3_k, get_q3_k, put_q3_k},
    {Type::kQ4_0, "Q4_0", 32, 18, 1, 8, unpack_nibbles<2, 0>, pack_nibbles<2, 0>, get_d<0>, put_d<0>},
    {Type::kQ4_K, "Q4_K", 256, 144, 8, 0, unpack_q4_k, pack_q4_k, get_q45_k, put_q45_k},
    {Type::kQ4_1, "Q4_1", 32, 20, 1, 0, unpack_nibbles<4, 0>, pack_nibbles<4, 0>, get_d_m, put_d_m},
    {Type::kQ5_0, "Q5_0", 32, 22, 1, 16, unpack_nibbles<6, 2>, pack_nibbles<6, 2>, get_d<0>, put_d<0>},
    {Type::kQ5_K, "Q5_K", 256, 176, 8, 0, unpack_q5_k, pack_q5_k, get_q45_k, put_q45_k},
    {Type::kQ5_1, "Q5_1", 32, 24, 1, 0, unpack_nibbles<8, 4>, pack_nibbles<8, 4>, get_d_m, put_d_m},
    {Type::kQ6_K, "Q6_K", 256, 210, 16, 32, unpack_q6_k, pack_q6_k, get_q6_k, put_q6_k},
    {Type::kQ8_0, "Q8_0", 32, 34, 1, 128, unpack_q8_0, pack_q8_0, get_d<0>, put_d<0>},
    {Type::kBF16, "BF16", 1, 2, 0, 0, nullptr, nullptr, nullptr, nullptr},
    {Type::kF16, "F16", 1, 2, 0, 0, nullptr, nullptr, nullptr, nullptr},
    {Type::kF32, "F32", 1, 4, 0, 0, nullptr, nullptr, nullptr, nullptr},
};

/// Types that other programs write, for messages.
constexpr std::pair<uint32_t, const char*> kOthers[] = {
    {9, "Q8_1"},    {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
    {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"}, {24, "I8"},      {25, "I16"},
    {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},  {39, "MXFP4"},   {40, "NVFP4"}};

}  // namespace

std::span<const BlockType> block_types() { return kTypes; }

const BlockType* find_block_type(uint32_t id) {
  for (const BlockType& type : kTypes)
    if (static_cast<uint32_t>(type.type) == id) return &type;
  return nullptr;
}

const BlockType* find_block_type(const std::string& name) {
  for (const BlockType& type : kTypes)
    if (type.name == name) return &type;
  return nullptr;
}

const BlockType& block_type(Type type) {
  const BlockType* found = find_block_type(static_cast<uint32_t>(type));
  SATIN_CHECK(found, "no block type ", static_cast<uint32_t>(type));
  return *found;
}

std::string type_text(uint32_t id) {
  if (const BlockType* type = find_block_type(id)) return cat(type->name, " (", id, ")");
  for (const auto& [other, name] : kOthers)
    if (other == id) return cat(name, " (", id, ")");
  return cat("number ", id);
}

void dequantize(const BlockType& type, std::span<const std::byte> row, std::span<float> out) {
  if (type.type == Type::kF32) return void(std::memcpy(out.data(), row.data(), out.size() * 4));
  if (type.type == Type::kF16) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = load_half(row.data() + 2 * i);
    return;
  }
  if (type.type == Type::kBF16) {
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = std::bit_cast<float>(uint32_t{byte_at(row.data(), 2 * i)} << 16 |
                                    uint32_t{byte_at(row.data(), 2 * i + 1)} << 24);
    return;
  }
  uint8_t integers[kMaxBlock];
  const int part = type.block / type.num_parts;
  for (size_t b = 0; b < out.size() / type.block; ++b) {
    const std::byte* block = row.data() + b * type.bytes;
    float* values = out.data() + b * type.block;
    BlockScales scales;
    type.get_scales(block, scales);
    type.unpack(block, integers);
    for (int p = 0; p < type.num_parts; ++p) {
      const float factor = scales.d * scales.sc[p], minimum = scales.m * scales.mn[p];
      for (int i = p * part; i < (p + 1) * part; ++i)
        values[i] = factor * static_cast<float>(integers[i] - type.offset) - minimum;
    }
  }
}

float half_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t{bits} >> 15 << 31, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

std::optional<uint16_t> exact_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const float magnitude = std::abs(value);
  if (!(magnitude <= 65504)) return std::isinf(value) ? std::optional<uint16_t>(sign | 0x7c00) : std::nullopt;
  if (magnitude < 0x1p-14f) {  // subnormal: whole multiples of 2^-24
    const float steps = magnitude * 0x1p24f;
    if (steps != std::floor(steps)) return std::nullopt;
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(steps));
  }
  if (bits & 0x1fff) return std::nullopt;
  return static_cast<uint16_t>(sign | ((bits >> 13 & 0x3ffff) - (112 << 10)));
}

}  // namespace satin::exporting::gguf
