// The header of a GGUF file, checked in full, and written. No torch here, so that a fuzzer can run it alone.
//
// "GGUF", u32 version, i64 number of tensors, i64 number of keys; keys (string, u32 type, value); tensors (string, u32
// number of dimensions, i64 sizes, the fastest first, u32 type, u64 offset); padding; data. Strings are u64 length and
// bytes. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and ggml's reader, whose limits these are.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "export/gguf_blocks.h"

namespace satin::exporting::gguf {

template <class... T>
using ValueOf = std::variant<T..., std::vector<T>...>;
using Value =
    ValueOf<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string, uint64_t, int64_t, double>;

struct TensorEntry {
  std::string name;
  std::vector<int64_t> shape;  ///< the slowest first, as everywhere in Satin
  const BlockType* type = nullptr;
  size_t begin = 0;  ///< bytes from the start of the data
  size_t bytes() const;
  int64_t num_rows() const;  ///< of shape.back() weights
  size_t row_bytes() const;
};

struct Header {
  std::vector<std::pair<std::string, Value>> keys;
  std::vector<TensorEntry> tensors;
  size_t data_begin = 0;  ///< bytes from the file's start

  /// nullptr: absent.
  const Value* find(std::string_view key) const;
};

constexpr size_t kAlignment = 32;
size_t padded(size_t bytes, size_t alignment = kAlignment);

/// Parses the header of `file`, the whole file's bytes: version 2 or 3. After it every tensor is of a type that is
/// read, in the file, after the one before it, in whole blocks, and names are found once. Nothing is allocated beyond
/// a small multiple of the file's size.
/// Errors: UserError with `where` (the path), the tensor or key, what was expected and what was found.
Header parse_header(std::span<const std::byte> file, const std::string& where);

/// Sets the tensors' offsets and gives the bytes before the data, padded.
/// Errors: UserError for a name of 64 bytes or more.
std::string format_header(Header& header);

/// A key's value as a number or text, whatever its width. Throws UserError with `where` and the key when it is of
/// another kind, out of [min, max], or (for the first three) absent.
int64_t required_integer(const Header& header, const std::string& key, int64_t min, int64_t max,
                         const std::string& where);
double required_number(const Header& header, const std::string& key, const std::string& where);
const std::string& required_text(const Header& header, const std::string& key, const std::string& where);
int64_t integer_or(const Header& header, const std::string& key, int64_t fallback, int64_t min, int64_t max,
                   const std::string& where);
bool boolean_or(const Header& header, const std::string& key, bool fallback, const std::string& where);
std::string text_or(const Header& header, const std::string& key, const std::string& fallback,
                    const std::string& where);
/// An array of exactly this kind of elements; nullptr when the key is absent.
template <class T>
const std::vector<T>* array_of(const Header& header, const std::string& key, const std::string& where);

}  // namespace satin::exporting::gguf
