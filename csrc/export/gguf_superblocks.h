// Layouts of 256 weights, and bytes and 16-bit floats of blocks. What is declared here is the content of the table in
// gguf_blocks.cpp.
#pragma once
#include "export/gguf_blocks.h"

namespace satin::exporting::gguf {

inline uint8_t byte_at(const std::byte* bytes, size_t i) { return static_cast<uint8_t>(bytes[i]); }
/// Unaligned, little-endian.
inline float load_half(const std::byte* bytes) {
  return half_to_float(static_cast<uint16_t>(byte_at(bytes, 0) | byte_at(bytes, 1) << 8));
}
/// `value` is a float16. Throws InternalError when it is not.
void store_half(float value, std::byte* bytes);

void unpack_q2_k(const std::byte* block, uint8_t* u);
void pack_q2_k(const uint8_t* u, std::byte* block);
void get_q2_k(const std::byte* block, BlockScales& scales);
void put_q2_k(const BlockScales& scales, std::byte* block);

void unpack_q3_k(const std::byte* block, uint8_t* u);
void pack_q3_k(const uint8_t* u, std::byte* block);
void get_q3_k(const std::byte* block, BlockScales& scales);
void put_q3_k(const BlockScales& scales, std::byte* block);

void unpack_q4_k(const std::byte* block, uint8_t* u);
void pack_q4_k(const uint8_t* u, std::byte* block);
void unpack_q5_k(const std::byte* block, uint8_t* u);
void pack_q5_k(const uint8_t* u, std::byte* block);
void get_q45_k(const std::byte* block, BlockScales& scales);
void put_q45_k(const BlockScales& scales, std::byte* block);

void unpack_q6_k(const std::byte* block, uint8_t* u);
void pack_q6_k(const uint8_t* u, std::byte* block);
void get_q6_k(const std::byte* block, BlockScales& scales);
void put_q6_k(const BlockScales& scales, std::byte* block);

void unpack_tq1_0(const std::byte* block, uint8_t* u);
void pack_tq1_0(const uint8_t* u, std::byte* block);
void unpack_tq2_0(const std::byte* block, uint8_t* u);
void pack_tq2_0(const uint8_t* u, std::byte* block);

}  // namespace satin::exporting::gguf
