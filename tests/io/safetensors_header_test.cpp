// Lying headers: each is refused by a message that says what is wrong and where.
#include "io/safetensors_header.h"

#include <cstring>

#include "core/error.h"
#include "support/test_support.h"

namespace satin::io {
namespace {

std::string file_with(const std::string& json, size_t data_bytes) {
  const uint64_t length = json.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + json + std::string(data_bytes, 'x');
}

SafetensorsHeader parse(const std::string& bytes) {
  return parse_safetensors_header(std::as_bytes(std::span(bytes)), "f.safetensors");
}

void expect_refused(const std::string& bytes, const std::string& reason) {
  try {
    parse(bytes);
    FAIL() << "accepted, expected: " << reason;
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("f.safetensors"), std::string::npos) << error.what();
    EXPECT_LT(std::strlen(error.what()), 2000u);
  }
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

}  // namespace

TEST(SafetensorsHeader, ReadsWhatTheFormatAllows) {
  const auto header = parse(file_with(R"({"__metadata__":{"format":"pt"},"b":)" + entry("\"F32\"", "[2,3]", "[4,28]") +
                                          R"(,"scalar":)" + entry("\"I32\"", "[]", "[0,4]") + R"(,"empty":)" +
                                          entry("\"BF16\"", "[0,5]", "[28,28]") + "}  ",
                                      28));
  ASSERT_EQ(header.tensors.size(), 3u);
  EXPECT_EQ(header.metadata.at("format"), "pt");
  EXPECT_EQ(header.tensors.at("b").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header.tensors.at("b").begin, 4u);
  EXPECT_TRUE(header.tensors.at("scalar").shape.empty());
  EXPECT_TRUE(parse(file_with("{}", 0)).tensors.empty());
}

TEST(SafetensorsHeader, RefusesFilesThatAreNotOne) {
  expect_refused("", "at least 8 bytes");
  expect_refused("1234567", "at least 8 bytes");
  expect_refused(std::string(8, '\xff'), "the header would be 18446744073709551615");
  expect_refused(std::string("\0\xe1\xf5\x05\0\0\0\0x", 9), "truncated");            // 99,999,... claimed, 1 there
  expect_refused(std::string("\x01\xe1\xf5\x05\0\0\0\0x", 9), "at most 100000000");  // one byte over the limit
  expect_refused(std::string(8, '\0'), "not valid JSON");
  expect_refused(file_with("", 0), "not valid JSON");
  expect_refused(file_with("{", 0), "not valid JSON");
  expect_refused(file_with("{}x", 0), "not valid JSON");
  expect_refused(file_with("\xff\xfe{}", 0), "not valid JSON");
  expect_refused(file_with("[]", 0), "JSON object");
  expect_refused(file_with("3", 0), "JSON object");
  expect_refused(file_with("\"a\"", 0), "JSON object");
}

TEST(SafetensorsHeader, RefusesLyingEntries) {
  const auto one = [](const std::string& value, size_t bytes) { return file_with(R"({"w":)" + value + "}", bytes); };
  expect_refused(one(entry("\"F32\"", "[2]", "[0,8]"), 7), "truncated or damaged");
  expect_refused(one(entry("\"F32\"", "[2]", "[0,8]"), 9), "end at byte 8 of the data, but the file has 9");
  expect_refused(one(entry("\"F32\"", "[3]", "[0,8]"), 8), "need 12");
  expect_refused(one(entry("\"F32\"", "[2]", "[4,12]"), 12), "gap");
  expect_refused(one(entry("\"F32\"", "[2]", "[8,0]"), 8), "backwards");
  expect_refused(one(entry("\"F32\"", "[-2]", "[0,8]"), 8), "negative");
  expect_refused(one(entry("\"F32\"", "[2.0]", "[0,8]"), 8), "fraction");
  expect_refused(one(entry("\"F32\"", "[2]", "[-8,0]"), 8), "negative");
  expect_refused(one(entry("\"F32\"", "[2]", "[0,8,9]"), 8), "found a number");
  expect_refused(one(entry("\"F32\"", "[2]", "[0]"), 8), "two numbers");
  expect_refused(one(entry("\"F32\"", "[[2]]", "[0,8]"), 8), "found an array");
  expect_refused(one(entry("\"F32\"", "2", "[0,8]"), 8), "expected an array for shape");
  expect_refused(one(entry("32", "[2]", "[0,8]"), 8), "expected a string for dtype");
  expect_refused(one(entry("\"F31\"", "[2]", "[0,8]"), 8), "dtype \"F31\" is not supported (supported: F64, F32");
  expect_refused(one(entry("null", "[2]", "[0,8]"), 8), "null");
  expect_refused(one(R"({"dtype":"F32","shape":[2]})", 8), "one is missing");
  expect_refused(one(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})", 8), "found twice");
  expect_refused(one(R"({"dtype":"F32","stride":[1],"shape":[2],"data_offsets":[0,8]})", 8), "\"stride\"");
  expect_refused(one("3", 0), "found a number");
  expect_refused(one("{}", 0), "one is missing");
  expect_refused(one(entry("\"F32\"", "{}", "[0,8]"), 8), "found an object");
}

TEST(SafetensorsHeader, RefusesOverflow) {
  const auto one = [](const std::string& value) { return file_with(R"({"w":)" + value + "}", 8); };
  // 2^61 * 8 elements of 4 bytes is 2^66: 0 modulo 2^64. Huge dimensions beside a zero overflow strides.
  expect_refused(one(entry("\"F32\"", "[2305843009213693952,8]", "[0,0]")), "too large");
  expect_refused(one(entry("\"F32\"", "[0,4611686018427387904,4611686018427387904]", "[0,0]")), "too large");
  expect_refused(one(entry("\"F32\"", "[18446744073709551615]", "[0,8]")), "too large");
  expect_refused(one(entry("\"F32\"", "[18446744073709551616]", "[0,8]")), "huge");
  expect_refused(one(entry("\"U8\"", "[8]", "[18446744073709551608,18446744073709551616]")), "huge");
  expect_refused(one(entry("\"U8\"", "[8]", "[18446744073709551607,18446744073709551615]")), "beyond");
  std::string ones = "[1";
  for (int i = 0; i < 100; ++i) ones += ",1";
  expect_refused(one(entry("\"U8\"", ones + "]", "[0,1]")), "dimensions");
}

TEST(SafetensorsHeader, RefusesOverlapsAndDuplicates) {
  const std::string w = entry("\"U8\"", "[4]", "[0,4]");
  expect_refused(file_with(R"({"a":)" + w + R"(,"b":)" + w + "}", 4), "overlap");
  expect_refused(file_with(R"({"a":)" + w + R"(,"a":)" + entry("\"U8\"", "[4]", "[4,8]") + "}", 8), "found twice");
  expect_refused(file_with(R"({"a":)" + w + R"(,"b":)" + entry("\"U8\"", "[3]", "[3,6]") + "}", 6), "overlap");
  expect_refused(file_with(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "found twice");
  expect_refused(file_with(R"({"__metadata__":{},"__metadata__":{}})", 0), "found twice");
  expect_refused(file_with(R"({"__metadata__":{"a":1}})", 0), "metadata to be text");
  expect_refused(file_with(R"({"__metadata__":3})", 0), "found a number");
}

TEST(SafetensorsHeader, DeepNestingAndLongNamesStayCheap) {
  expect_refused(file_with(std::string(1'000'000, '['), 0), "JSON object");
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += R"({"a":)";
  expect_refused(file_with(deep, 0), "found \"a\"");
  expect_refused(file_with("{\"" + std::string(1'000'000, 'n') + "\\u0007\":3}", 0), "...");
}

}  // namespace satin::io
