#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace satin::io {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian and is mapped as it is");

constexpr size_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxRank = 64;  // of torch

constexpr std::array<std::pair<std::string_view, size_t>, 15> kDtypes = {{{"F64", 8},
                                                                          {"F32", 4},
                                                                          {"F16", 2},
                                                                          {"BF16", 2},
                                                                          {"F8_E4M3", 1},
                                                                          {"F8_E5M2", 1},
                                                                          {"I64", 8},
                                                                          {"I32", 4},
                                                                          {"I16", 2},
                                                                          {"I8", 1},
                                                                          {"U64", 8},
                                                                          {"U32", 4},
                                                                          {"U16", 2},
                                                                          {"U8", 1},
                                                                          {"BOOL", 1}}};

/// A name from the file, fit to print.
std::string quoted(const std::string& name) {
  std::string out = "\"";
  for (char c : name.substr(0, 200)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return out + (name.size() > 200 ? "...\"" : "\"");
}

/// Fills a SafetensorsHeader from JSON events: nothing nests deeper than the format does, and duplicates are seen.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(SafetensorsHeader& header, const std::string& where) : header_(header), where_(where) {}

  bool start_object(size_t) override {
    if (place_ == Place::kOutside) {
      place_ = Place::kNames;
    } else if (place_ == Place::kNames) {
      place_ = name_ == "__metadata__" ? Place::kMetadata : Place::kEntry;
      entry_ = {};
      has_dtype_ = has_shape_ = false;
      offsets_.clear();
      seen_.clear();
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool key(string_t& key) override {
    if (place_ == Place::kNames) {
      if (header_.tensors.contains(key) || (key == "__metadata__" && has_metadata_))
        fail("found twice in the header", key);
      name_ = key;
      return true;
    }
    if (place_ == Place::kMetadata ? header_.metadata.contains(key) : std::ranges::find(seen_, key) != seen_.end())
      fail(cat("key ", quoted(key), " found twice"));
    if (place_ == Place::kEntry) {
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        fail(cat("expected the keys dtype, shape and data_offsets, found ", quoted(key)));
      seen_.push_back(key);
    }
    field_ = key;
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[field_] = value;
    } else if (place_ == Place::kEntry && field_ == "dtype") {
      if (dtype_size_bytes(value) == 0) {
        std::string known;
        for (const auto& dtype : kDtypes) known += cat(known.empty() ? "" : ", ", dtype.first);
        fail(cat("dtype ", quoted(value), " is not supported (supported: ", known, ")"));
      }
      entry_.dtype = value;
      has_dtype_ = true;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::kEntry || field_ == "dtype") unexpected("an array");
    place_ = field_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      if (value > static_cast<uint64_t>(INT64_MAX)) fail(cat("dimension ", value, " is too large"));
      if (entry_.shape.size() == kMaxRank) fail(cat("more than ", kMaxRank, " dimensions"));
      entry_.shape.push_back(static_cast<int64_t>(value));
    } else if (place_ == Place::kOffsets && offsets_.size() < 2) {
      offsets_.push_back(value);
    } else {
      unexpected("a number");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kShape) has_shape_ = true;
    if (place_ == Place::kOffsets && offsets_.size() != 2) fail("data_offsets must be two numbers");
    place_ = Place::kEntry;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kNames) {
      place_ = Place::kOutside;
      return true;
    }
    if (place_ == Place::kEntry) {
      if (!has_dtype_ || !has_shape_ || offsets_.empty())
        fail("expected dtype, shape and data_offsets, one is missing");
      entry_.begin = offsets_[0];
      entry_.end = offsets_[1];
      header_.tensors.emplace(name_, std::move(entry_));
    } else {
      has_metadata_ = true;
    }
    place_ = Place::kNames;
    return true;
  }

  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return unexpected("a fraction or a huge number"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool null() override { return unexpected("null"); }
  bool binary(binary_t&) override { return unexpected("binary"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    throw UserError(cat(where_, ": the header is not valid JSON at its byte ", position, " (", error.what(), ")"));
  }

 private:
  enum class Place { kOutside, kNames, kMetadata, kEntry, kShape, kOffsets };

  [[noreturn]] void fail(const std::string& problem) const { fail(problem, name_); }
  [[noreturn]] void fail(const std::string& problem, const std::string& tensor) const {
    throw UserError(cat(where_, ": tensor ", quoted(tensor), ": ", problem));
  }
  bool unexpected(const char* found) const {
    switch (place_) {
      case Place::kOutside:
        throw UserError(cat(where_, ": expected the header to be a JSON object, found ", found));
      case Place::kNames:
        fail(cat("expected an object with dtype, shape and data_offsets, found ", found));
      case Place::kMetadata:
        fail(cat("expected metadata to be text, found ", found, " at ", quoted(field_)));
      case Place::kEntry:
        fail(cat("expected ", field_ == "dtype" ? "a string" : "an array", " for ", field_, ", found ", found));
      case Place::kShape:
        fail(cat("expected shape to hold whole numbers from 0, found ", found));
      case Place::kOffsets:
        fail(cat("expected data_offsets to be two whole numbers from 0, found ", found));
    }
    return false;
  }

  SafetensorsHeader& header_;
  const std::string& where_;
  Place place_ = Place::kOutside;
  std::string name_, field_;
  std::vector<std::string> seen_;  // keys of the entry
  HeaderEntry entry_;
  std::vector<uint64_t> offsets_;
  bool has_dtype_ = false, has_shape_ = false, has_metadata_ = false;
};

/// Bytes that the shape needs. Zero dimensions count as one for the overflow check: torch multiplies strides that way.
size_t span_bytes(const std::string& name, const HeaderEntry& entry, const std::string& where) {
  int64_t bound = static_cast<int64_t>(dtype_size_bytes(entry.dtype));
  bool empty = false;
  for (int64_t dim : entry.shape) {
    empty |= dim == 0;
    if (__builtin_mul_overflow(bound, std::max<int64_t>(dim, 1), &bound))
      throw UserError(cat(where, ": tensor ", quoted(name), ": the shape is too large for any file"));
  }
  return empty ? 0 : static_cast<size_t>(bound);
}

void check_spans(const SafetensorsHeader& header, size_t data_bytes, const std::string& where) {
  std::vector<const std::pair<const std::string, HeaderEntry>*> in_order;
  for (const auto& tensor : header.tensors) in_order.push_back(&tensor);
  std::sort(in_order.begin(), in_order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  size_t expected = 0;
  for (const auto* tensor : in_order) {
    const auto& [name, entry] = *tensor;
    const std::string at = cat(where, ": tensor ", quoted(name), ": data_offsets [", entry.begin, ", ", entry.end, "]");
    if (entry.begin > entry.end) throw UserError(at + " run backwards");
    if (entry.end > data_bytes)
      throw UserError(cat(at, " go beyond the ", data_bytes, " bytes of data in the file: it is truncated or damaged"));
    if (entry.begin != expected)
      throw UserError(cat(at, entry.begin < expected ? " overlap" : " leave a gap after",
                          " the tensor before, which ends at ", expected));
    if (const size_t needed = span_bytes(name, entry, where); needed != entry.end - entry.begin)
      throw UserError(cat(at, " hold ", entry.end - entry.begin, " bytes, but its shape and dtype ", entry.dtype,
                          " need ", needed));
    expected = entry.end;
  }
  if (expected != data_bytes)
    throw UserError(cat(where, ": the tensors end at byte ", expected, " of the data, but the file has ", data_bytes));
}

}  // namespace

size_t dtype_size_bytes(std::string_view dtype) {
  for (const auto& [name, size] : kDtypes)
    if (name == dtype) return size;
  return 0;
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, const std::string& where) {
  uint64_t length = 0;
  if (file.size() < sizeof length)
    throw UserError(cat(where, ": not a safetensors file: expected at least 8 bytes, found ", file.size()));
  std::memcpy(&length, file.data(), sizeof length);
  if (length > kMaxHeaderBytes)
    throw UserError(
        cat(where, ": not a safetensors file: the header would be ", length, " bytes (at most ", kMaxHeaderBytes, ")"));
  if (length > file.size() - sizeof length)
    throw UserError(cat(where, ": truncated: the header is ", length, " bytes, the file ", file.size()));
  const char* json = reinterpret_cast<const char*>(file.data()) + sizeof length;
  SafetensorsHeader header;
  header.data_begin = sizeof length + length;
  HeaderReader reader(header, where);
  nlohmann::json::sax_parse(json, json + length, &reader);
  check_spans(header, file.size() - header.data_begin, where);
  return header;
}

std::string format_safetensors_header(const std::vector<std::pair<std::string, HeaderEntry>>& tensors,
                                      const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  const auto add = [&text](const std::string& name, const nlohmann::json& value) {
    text += (text.size() > 1 ? "," : "") + nlohmann::json(name).dump() + ":" + value.dump();
  };
  if (!metadata.empty()) add("__metadata__", metadata);
  for (const auto& [name, entry] : tensors)
    add(name, {{"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}});
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + text;
}

}  // namespace satin::io
