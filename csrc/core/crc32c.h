// CRC-32C (Castagnoli), as of RFC 3720.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace satin {

/// Of `bytes`, continuing from `crc`.
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t crc = 0);

/// Of A followed by B, from crc32c(A), crc32c(B) and B's size.
uint32_t crc32c_combine(uint32_t first, uint32_t second, uint64_t second_size_bytes);

}  // namespace satin
