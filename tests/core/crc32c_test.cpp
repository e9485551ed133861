#include "core/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace satin {
namespace {

/// Bit by bit, from the definition.
uint32_t by_division(const std::vector<std::byte>& bytes) {
  uint32_t remainder = 0xffffffff;
  for (const std::byte byte : bytes) {
    remainder ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) remainder = remainder >> 1 ^ (remainder & 1 ? 0x82f63b78 : 0);
  }
  return ~remainder;
}

std::vector<std::byte> random_bytes(std::mt19937& random, size_t size) {
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

}  // namespace

TEST(Crc32c, CheckValue) {  // RFC 3720, appendix B.4: "123456789" and 32 zero bytes
  const char* digits = "123456789";
  EXPECT_EQ(crc32c(std::as_bytes(std::span(digits, 9))), 0xe3069283u);
  const std::string zeros(32, '\0');
  EXPECT_EQ(crc32c(std::as_bytes(std::span(zeros.data(), 32))), 0x8a9136aau);
}

TEST(Crc32c, PartsCombineToTheWhole) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const auto whole = random_bytes(random, random() % 2000);
    const uint32_t expected = by_division(whole);
    EXPECT_EQ(crc32c(whole), expected);
    const size_t cut = round % 3 == 0 ? 0 : round % 3 == 1 ? whole.size() : random() % (whole.size() + 1);
    const std::span<const std::byte> bytes(whole);
    EXPECT_EQ(crc32c(bytes.subspan(cut), crc32c(bytes.first(cut))), expected);
    EXPECT_EQ(crc32c_combine(crc32c(bytes.first(cut)), crc32c(bytes.subspan(cut)), whole.size() - cut), expected);
  }
}

TEST(Crc32c, PartsBeyondFourGibibytesCombine) {
  // 6 GiB of zeros after "x": piece by piece, which does not use the large size, against at once.
  const std::byte x{'x'};
  const std::vector<std::byte> zeros(1 << 20);
  const uint32_t of_piece = crc32c(zeros);
  uint32_t expected = crc32c({&x, 1}), of_zeros = 0;
  for (int piece = 0; piece < 6 << 10; ++piece) {
    expected = crc32c_combine(expected, of_piece, zeros.size());
    of_zeros = crc32c_combine(of_zeros, of_piece, zeros.size());
  }
  EXPECT_EQ(crc32c_combine(crc32c({&x, 1}), of_zeros, uint64_t{6} << 30), expected);
  EXPECT_NE(expected, of_zeros);
}

}  // namespace satin
