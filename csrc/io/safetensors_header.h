// The header of a safetensors file, checked in full. No torch here, so that a fuzzer can run it alone.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace satin::io {

struct HeaderEntry {
  std::string dtype;  ///< "F32", "BF16", ...: one that dtype_size_bytes knows
  std::vector<int64_t> shape;
  size_t begin = 0, end = 0;  ///< bytes in the data section
};

struct SafetensorsHeader {
  size_t data_begin = 0;  ///< bytes from the file's start
  std::map<std::string, HeaderEntry> tensors;
  std::map<std::string, std::string> metadata;
};

/// Bytes an element, 0 for an unknown dtype.
size_t dtype_size_bytes(std::string_view dtype);

/// Parses the header of `file`, the whole file's bytes. After it every span is inside the file, spans tile the data
/// section without gap or overlap, and shape times element size is the span without overflow.
/// Errors: UserError with `where` (the path), the tensor, what was expected and what was found.
/// Source: https://huggingface.co/docs/safetensors (format), limits as in its reference implementation.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, const std::string& where);

/// The bytes before the data section: length, JSON in the order given, spaces up to a multiple of 8.
std::string format_safetensors_header(const std::vector<std::pair<std::string, HeaderEntry>>& tensors,
                                      const std::map<std::string, std::string>& metadata);

}  // namespace satin::io
