#include "export/gguf_superblocks.h"

#include <algorithm>

#include "core/error.h"

namespace satin::exporting::gguf {
namespace {

/// `Bits` bits of each of `size` weights from `bytes`: runs of `run` weights share their bytes, the first run in the
/// lowest bits. Bits are put in at `shift`.
template <int Bits>
void unpack_planes(const std::byte* bytes, int size, int run, int shift, uint8_t* u) {
  constexpr int kRuns = 8 / Bits, kMask = (1 << Bits) - 1;
  for (int i = 0; i < size; ++i) {
    const int chunk = i / (run * kRuns), plane = i / run % kRuns;
    u[i] |= (byte_at(bytes, chunk * run + i % run) >> (Bits * plane) & kMask) << shift;
  }
}
template <int Bits>
void pack_planes(const uint8_t* u, int size, int run, int shift, std::byte* bytes) {
  constexpr int kRuns = 8 / Bits, kMask = (1 << Bits) - 1;
  std::fill_n(bytes, size / kRuns, std::byte{});
  for (int i = 0; i < size; ++i) {
    const int chunk = i / (run * kRuns), plane = i / run % kRuns;
    bytes[chunk * run + i % run] |= std::byte((u[i] >> shift & kMask) << (Bits * plane));
  }
}

}  // namespace

void store_half(float value, std::byte* bytes) {
  const auto half = exact_half(value);
  SATIN_CHECK(half, value, " is not a float16");
  bytes[0] = std::byte(*half & 255);
  bytes[1] = std::byte(*half >> 8);
}

// Q2_K: 16 bytes of sc | mn << 4, 64 of two bits, d, m.
void unpack_q2_k(const std::byte* block, uint8_t* u) {
  std::fill_n(u, 256, uint8_t{0});
  unpack_planes<2>(block + 16, 256, 32, 0, u);
}
void pack_q2_k(const uint8_t* u, std::byte* block) { pack_planes<2>(u, 256, 32, 0, block + 16); }
void get_q2_k(const std::byte* block, BlockScales& scales) {
  for (int i = 0; i < 16; ++i) {
    scales.sc[i] = byte_at(block, i) & 15;
    scales.mn[i] = byte_at(block, i) >> 4;
  }
  scales.d = load_half(block + 80);
  scales.m = load_half(block + 82);
}
void put_q2_k(const BlockScales& scales, std::byte* block) {
  for (int i = 0; i < 16; ++i) block[i] = std::byte(scales.sc[i] | scales.mn[i] << 4);
  store_half(scales.d, block + 80);
  store_half(scales.m, block + 82);
}

// Q3_K: 32 bytes of the third bit, 64 of the lower two, 12 of sc + 32 in six bits, d.
void unpack_q3_k(const std::byte* block, uint8_t* u) {
  std::fill_n(u, 256, uint8_t{0});
  unpack_planes<2>(block + 32, 256, 32, 0, u);
  unpack_planes<1>(block, 256, 32, 2, u);
}
void pack_q3_k(const uint8_t* u, std::byte* block) {
  pack_planes<2>(u, 256, 32, 0, block + 32);
  pack_planes<1>(u, 256, 32, 2, block);
}
void get_q3_k(const std::byte* block, BlockScales& scales) {
  const std::byte* packed = block + 96;  // low nibbles in 8 bytes, then the upper two bits in 4
  for (int i = 0; i < 16; ++i) {
    const int low = byte_at(packed, i % 8) >> (4 * (i / 8)) & 15,
              high = byte_at(packed, 8 + i % 4) >> (2 * (i / 4)) & 3;
    scales.sc[i] = static_cast<int16_t>((low | high << 4) - 32);
  }
  scales.d = load_half(block + 108);
}
void put_q3_k(const BlockScales& scales, std::byte* block) {
  std::byte* packed = block + 96;
  std::fill_n(packed, 12, std::byte{});
  for (int i = 0; i < 16; ++i) {
    const int stored = scales.sc[i] + 32;
    packed[i % 8] |= std::byte((stored & 15) << (4 * (i / 8)));
    packed[8 + i % 4] |= std::byte((stored >> 4) << (2 * (i / 4)));
  }
  store_half(scales.d, block + 108);
}

// Q4_K, Q5_K: d, m, 12 bytes of 8 sc and 8 mn in six bits, (32 of the fifth bit,) 128 of nibbles.
void unpack_q4_k(const std::byte* block, uint8_t* u) {
  std::fill_n(u, 256, uint8_t{0});
  unpack_planes<4>(block + 16, 256, 32, 0, u);
}
void pack_q4_k(const uint8_t* u, std::byte* block) { pack_planes<4>(u, 256, 32, 0, block + 16); }
void unpack_q5_k(const std::byte* block, uint8_t* u) {
  std::fill_n(u, 256, uint8_t{0});
  unpack_planes<4>(block + 48, 256, 32, 0, u);
  unpack_planes<1>(block + 16, 256, 32, 4, u);
}
void pack_q5_k(const uint8_t* u, std::byte* block) {
  pack_planes<4>(u, 256, 32, 0, block + 48);
  pack_planes<1>(u, 256, 32, 4, block + 16);
}
void get_q45_k(const std::byte* block, BlockScales& scales) {
  scales.d = load_half(block);
  scales.m = load_half(block + 2);
  const std::byte* packed = block + 4;  // sc 0-3, mn 0-3 in the lower six bits; nibbles of 4-7; their upper bits above
  for (int i = 0; i < 4; ++i) {
    scales.sc[i] = byte_at(packed, i) & 63;
    scales.mn[i] = byte_at(packed, 4 + i) & 63;
    scales.sc[4 + i] = static_cast<int16_t>((byte_at(packed, 8 + i) & 15) | byte_at(packed, i) >> 6 << 4);
    scales.mn[4 + i] = static_cast<int16_t>(byte_at(packed, 8 + i) >> 4 | byte_at(packed, 4 + i) >> 6 << 4);
  }
}
void put_q45_k(const BlockScales& scales, std::byte* block) {
  store_half(scales.d, block);
  store_half(scales.m, block + 2);
  std::byte* packed = block + 4;
  for (int i = 0; i < 4; ++i) {
    packed[i] = std::byte(scales.sc[i] | scales.sc[4 + i] >> 4 << 6);
    packed[4 + i] = std::byte(scales.mn[i] | scales.mn[4 + i] >> 4 << 6);
    packed[8 + i] = std::byte((scales.sc[4 + i] & 15) | (scales.mn[4 + i] & 15) << 4);
  }
}

// Q6_K: 128 bytes of nibbles, 64 of the upper two bits, 16 signed sc, d.
void unpack_q6_k(const std::byte* block, uint8_t* u) {
  std::fill_n(u, 256, uint8_t{0});
  unpack_planes<4>(block, 256, 64, 0, u);
  unpack_planes<2>(block + 128, 256, 32, 4, u);
}
void pack_q6_k(const uint8_t* u, std::byte* block) {
  pack_planes<4>(u, 256, 64, 0, block);
  pack_planes<2>(u, 256, 32, 4, block + 128);
}
void get_q6_k(const std::byte* block, BlockScales& scales) {
  for (int i = 0; i < 16; ++i) scales.sc[i] = static_cast<int8_t>(byte_at(block, 192 + i));
  scales.d = load_half(block + 208);
}
void put_q6_k(const BlockScales& scales, std::byte* block) {
  for (int i = 0; i < 16; ++i) block[192 + i] = std::byte(scales.sc[i]);
  store_half(scales.d, block + 208);
}

// TQ1_0: 48 bytes of five base-3 digits and 4 of four, d. Weights 0-159 in 32 bytes (digit n of byte j is weight
// 32 n + j), 160-239 in 16, 240-255 in 4. A byte is a fraction: digits times 3^4 ... 1 make v < 243, stored as
// ceil(v * 256 / 243), from which the n-th digit is (byte * 3^n mod 256) * 3 / 256.
namespace {
constexpr struct { int first, run, digits, byte; } kDigitRuns[] = {{0, 32, 5, 0}, {160, 16, 5, 32}, {240, 4, 4, 48}};
constexpr int kPowers[] = {1, 3, 9, 27, 81};
}  // namespace

void unpack_tq1_0(const std::byte* block, uint8_t* u) {
  for (const auto& [first, run, digits, byte] : kDigitRuns)
    for (int n = 0; n < digits; ++n)
      for (int j = 0; j < run; ++j)
        u[first + n * run + j] = static_cast<uint8_t>((byte_at(block, byte + j) * kPowers[n] & 255) * 3 >> 8);
}
void pack_tq1_0(const uint8_t* u, std::byte* block) {
  for (const auto& [first, run, digits, byte] : kDigitRuns)
    for (int j = 0; j < run; ++j) {
      int v = 0;
      for (int n = 0; n < digits; ++n) v += u[first + n * run + j] * kPowers[4 - n];
      block[byte + j] = std::byte((v * 256 + 242) / 243);
    }
}

// TQ2_0: 64 bytes of two bits, d.
void unpack_tq2_0(const std::byte* block, uint8_t* u) {
  std::fill_n(u, 256, uint8_t{0});
  unpack_planes<2>(block, 256, 32, 0, u);
}
void pack_tq2_0(const uint8_t* u, std::byte* block) { pack_planes<2>(u, 256, 32, 0, block); }

}  // namespace satin::exporting::gguf
