#include "export/gguf_header.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <unordered_set>

#include "core/error.h"

namespace satin::exporting::gguf {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian and is mapped as it is");

constexpr size_t kMaxName = 64, kMaxDimensions = 4, kMaxAlignment = 1 << 20;
constexpr int64_t kMaxSize = int64_t{1} << 40;  // of a dimension and of all of a tensor's weights
constexpr uint32_t kArray = 9;

/// The number that the file has for the kind of a value; arrays have that of their elements.
template <class T>
constexpr uint32_t kind_of() {
  if constexpr (std::is_same_v<T, uint8_t>) return 0;
  if constexpr (std::is_same_v<T, int8_t>) return 1;
  if constexpr (std::is_same_v<T, uint16_t>) return 2;
  if constexpr (std::is_same_v<T, int16_t>) return 3;
  if constexpr (std::is_same_v<T, uint32_t>) return 4;
  if constexpr (std::is_same_v<T, int32_t>) return 5;
  if constexpr (std::is_same_v<T, float>) return 6;
  if constexpr (std::is_same_v<T, bool>) return 7;
  if constexpr (std::is_same_v<T, std::string>) return 8;
  if constexpr (std::is_same_v<T, uint64_t>) return 10;
  if constexpr (std::is_same_v<T, int64_t>) return 11;
  if constexpr (std::is_same_v<T, double>) return 12;
}

/// A name from the file, fit to print.
std::string printable(const std::string& name) {
  std::string out = "\"";
  for (const char c : name.substr(0, 200)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return out + (name.size() > 200 ? "...\"" : "\"");
}

/// Reads from the front of the file; every read is checked against what is left.
class Reader {
 public:
  Reader(std::span<const std::byte> file, const std::string& where) : file_(file), where_(where) {}

  [[noreturn]] void fail(const std::string& what) const { throw UserError(cat(where_, ": ", what)); }
  size_t position() const { return position_; }
  size_t left() const { return file_.size() - position_; }

  template <class T>
  T read(const std::string& what) {
    if constexpr (std::is_same_v<T, std::string>) {
      const auto size = read<uint64_t>(what);
      if (size > left())
        fail(cat(what, ": a string of ", size, " bytes, ", left(), " are left; the file is truncated"));
      std::string text(reinterpret_cast<const char*>(file_.data()) + position_, size);
      position_ += size;
      return text;
    } else if constexpr (std::is_same_v<T, bool>) {
      const auto byte = read<uint8_t>(what);
      if (byte > 1) fail(cat(what, ": expected 0 or 1 for a bool, found ", int{byte}));
      return byte == 1;
    } else {
      if (sizeof(T) > left()) fail(cat(what, ": the file ends there; it is truncated"));
      T value;
      std::memcpy(&value, file_.data() + position_, sizeof(T));
      position_ += sizeof(T);
      return value;
    }
  }

  /// At least `least` bytes each must be left for so many.
  void check_count(uint64_t count, size_t least, const std::string& what) const {
    if (count > left() / least)
      fail(cat(what, ": ", count, " of them, but ", left(), " bytes are left; the file is damaged or truncated"));
  }

  Value value(uint32_t kind, const std::string& what) {
    if (kind != kArray) return value_of<false>(kind, 0, what);
    const auto element = read<uint32_t>(what);
    const auto count = read<uint64_t>(what);
    if (element == kArray) fail(cat(what, ": arrays of arrays are not supported"));
    return value_of<true>(element, count, what);
  }

 private:
  template <bool kIsArray, size_t I = 0>
  Value value_of(uint32_t kind, uint64_t count, const std::string& what) {
    if constexpr (I == std::variant_size_v<Value> / 2) {
      fail(cat(what, ": value type ", kind, " is not one"));
    } else {
      using T = std::variant_alternative_t<I, Value>;
      if (kind != kind_of<T>()) return value_of<kIsArray, I + 1>(kind, count, what);
      if constexpr (kIsArray) {
        check_count(count, std::is_same_v<T, std::string> ? 8 : sizeof(T), what);
        std::vector<T> values;
        values.reserve(count);
        for (uint64_t i = 0; i < count; ++i) values.push_back(read<T>(what));
        return values;
      } else {
        return read<T>(what);
      }
    }
  }

  std::span<const std::byte> file_;
  const std::string& where_;
  size_t position_ = 0;
};

TensorEntry read_tensor(Reader& reader) {
  TensorEntry tensor;
  tensor.name = reader.read<std::string>("a tensor's name");
  const std::string what = cat("tensor ", printable(tensor.name));
  if (tensor.name.empty() || tensor.name.size() >= kMaxName)
    reader.fail(cat(what, ": names have 1 to ", kMaxName - 1, " bytes"));
  const auto rank = reader.read<uint32_t>(what);
  if (rank < 1 || rank > kMaxDimensions)
    reader.fail(cat(what, ": expected 1 to ", kMaxDimensions, " dimensions, found ", rank));
  int64_t weights = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    const auto size = reader.read<int64_t>(what);
    if (size < 1 || size > kMaxSize || weights > kMaxSize / size)
      reader.fail(cat(what, ": dimension ", i, " is ", size, ", which no tensor has"));
    weights *= size;
    tensor.shape.insert(tensor.shape.begin(), size);
  }
  const auto type = reader.read<uint32_t>(what);
  tensor.type = find_block_type(type);
  if (!tensor.type) {
    std::string known;
    for (const BlockType& supported : block_types()) known += cat(known.empty() ? "" : ", ", supported.name);
    reader.fail(cat(what, ": type ", type_text(type), " is not supported; supported: ", known));
  }
  if (tensor.shape.back() % tensor.type->block)
    reader.fail(cat(what, ": rows of ", tensor.shape.back(), " weights are not whole blocks of ", tensor.type->block,
                    " (", tensor.type->name, ")"));
  tensor.begin = reader.read<uint64_t>(what);
  return tensor;
}

template <class T>
void append(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    append(out, uint64_t{value.size()});
    out += value;
  } else if constexpr (std::is_same_v<T, bool>) {
    out += static_cast<char>(value);
  } else {
    out.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
}

void append_value(std::string& out, const Value& value) {
  std::visit(
      [&]<class T>(const T& held) {
        if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
          append(out, kind_of<T>());
          append(out, held);
        } else {
          using Element = typename T::value_type;
          append(out, kArray);
          append(out, kind_of<Element>());
          append(out, uint64_t{held.size()});
          for (const auto& element : held) append(out, Element(element));
        }
      },
      value);
}

[[noreturn]] void refuse(const std::string& where, const std::string& key, const std::string& what) {
  throw UserError(cat(where, ": key ", key, ": ", what));
}

/// Any scalar that is a number.
template <class T>
std::optional<T> number(const Value& value) {
  return std::visit(
      []<class Held>(const Held& held) -> std::optional<T> {
        if constexpr (std::is_arithmetic_v<Held> && !std::is_same_v<Held, bool>) {
          if constexpr (std::is_integral_v<T> && !std::is_integral_v<Held>) return std::nullopt;
          if constexpr (std::is_same_v<Held, uint64_t> && std::is_integral_v<T>)
            if (held > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
          return static_cast<T>(held);
        }
        return std::nullopt;
      },
      value);
}

}  // namespace

int64_t TensorEntry::num_rows() const {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}
size_t TensorEntry::row_bytes() const {
  return static_cast<size_t>(shape.back()) / static_cast<size_t>(type->block) * static_cast<size_t>(type->bytes);
}
size_t TensorEntry::bytes() const { return static_cast<size_t>(num_rows()) * row_bytes(); }

const Value* Header::find(std::string_view key) const {
  for (const auto& [name, value] : keys)
    if (name == key) return &value;
  return nullptr;
}

size_t padded(size_t bytes, size_t alignment) { return (bytes + alignment - 1) / alignment * alignment; }

Header parse_header(std::span<const std::byte> file, const std::string& where) {
  Reader reader(file, where);
  const auto magic = reader.read<uint32_t>("the first four bytes");
  if (magic != 0x46554747) reader.fail("expected a GGUF file, which begins with \"GGUF\"");
  const auto version = reader.read<uint32_t>("version");
  if (version != 2 && version != 3)
    reader.fail((version & 0xffff) == 0 ? "a big-endian GGUF file, which is not supported"
                                        : cat("GGUF version ", version, ", supported are 2 and 3"));
  const auto num_tensors = reader.read<uint64_t>("number of tensors"),
             num_keys = reader.read<uint64_t>("number of keys");
  reader.check_count(num_keys, 13, "keys");
  Header header;
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < num_keys; ++i) {
    std::string key = reader.read<std::string>(cat("the name of key ", i));
    const std::string what = "key " + printable(key);
    if (!names.insert(key).second) reader.fail(what + " is found twice");
    const auto kind = reader.read<uint32_t>(what);
    header.keys.emplace_back(std::move(key), reader.value(kind, what));
  }
  const auto alignment = static_cast<size_t>(
      integer_or(header, "general.alignment", kAlignment, 1, static_cast<int64_t>(kMaxAlignment), where));
  if (!std::has_single_bit(alignment))
    reader.fail(cat("general.alignment is ", alignment, ", expected a power of two"));
  reader.check_count(num_tensors, 33, "tensors");
  names.clear();
  size_t end = 0;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    TensorEntry tensor = read_tensor(reader);
    const std::string what = cat("tensor ", printable(tensor.name));
    if (!names.insert(tensor.name).second) reader.fail(what + " is found twice");
    if (tensor.begin != end)
      reader.fail(
          cat(what, ": expected its data at byte ", end, ", behind the tensor before it, found ", tensor.begin));
    end = padded(end + tensor.bytes(), alignment);
    if (end > 2 * file.size() + alignment)
      reader.fail(cat(what, ": its data ends behind the file's; the file is truncated"));
    header.tensors.push_back(std::move(tensor));
  }
  header.data_begin = padded(reader.position(), alignment);
  if (!header.tensors.empty()) {
    const TensorEntry& last = header.tensors.back();
    const size_t needed = header.data_begin + last.begin + last.bytes();
    if (needed > file.size())
      reader.fail(cat("expected ", needed, " bytes, found ", file.size(), "; the file is truncated"));
  }
  return header;
}

std::string format_header(Header& header) {
  std::string out;
  append(out, uint32_t{0x46554747});
  append(out, uint32_t{3});
  append(out, uint64_t{header.tensors.size()});
  append(out, uint64_t{header.keys.size()});
  for (const auto& [key, value] : header.keys) {
    append(out, key);
    append_value(out, value);
  }
  size_t end = 0;
  for (TensorEntry& tensor : header.tensors) {
    if (tensor.name.size() >= kMaxName)
      throw UserError(cat("tensor ", tensor.name, ": GGUF names have at most ", kMaxName - 1, " bytes"));
    append(out, tensor.name);
    append(out, static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) append(out, int64_t{*size});
    append(out, static_cast<uint32_t>(tensor.type->type));
    tensor.begin = end;
    append(out, uint64_t{end});
    end = padded(end + tensor.bytes());
  }
  out.resize(padded(out.size()));
  header.data_begin = out.size();
  return out;
}

int64_t integer_or(const Header& header, const std::string& key, int64_t fallback, int64_t min, int64_t max,
                   const std::string& where) {
  const Value* value = header.find(key);
  if (!value) return fallback;
  const auto found = number<int64_t>(*value);
  if (!found) refuse(where, key, "expected a whole number");
  if (*found < min || *found > max) refuse(where, key, cat("expected ", min, " to ", max, ", found ", *found));
  return *found;
}

int64_t required_integer(const Header& header, const std::string& key, int64_t min, int64_t max,
                         const std::string& where) {
  if (!header.find(key)) refuse(where, key, "it is missing");
  return integer_or(header, key, 0, min, max, where);
}

double required_number(const Header& header, const std::string& key, const std::string& where) {
  const Value* value = header.find(key);
  if (!value) refuse(where, key, "it is missing");
  const auto found = number<double>(*value);
  if (!found || !std::isfinite(*found)) refuse(where, key, "expected a number");
  return *found;
}

const std::string& required_text(const Header& header, const std::string& key, const std::string& where) {
  const Value* value = header.find(key);
  if (!value) refuse(where, key, "it is missing");
  const auto* text = std::get_if<std::string>(value);
  if (!text) refuse(where, key, "expected a string");
  return *text;
}

bool boolean_or(const Header& header, const std::string& key, bool fallback, const std::string& where) {
  const Value* value = header.find(key);
  if (!value) return fallback;
  const auto* found = std::get_if<bool>(value);
  if (!found) refuse(where, key, "expected a bool");
  return *found;
}

std::string text_or(const Header& header, const std::string& key, const std::string& fallback,
                    const std::string& where) {
  return header.find(key) ? required_text(header, key, where) : fallback;
}

template <class T>
const std::vector<T>* array_of(const Header& header, const std::string& key, const std::string& where) {
  const Value* value = header.find(key);
  if (!value) return nullptr;
  const auto* found = std::get_if<std::vector<T>>(value);
  if (!found) refuse(where, key, "it is not an array of the expected type");
  return found;
}
template const std::vector<std::string>* array_of(const Header&, const std::string&, const std::string&);
template const std::vector<int32_t>* array_of(const Header&, const std::string&, const std::string&);
template const std::vector<uint8_t>* array_of(const Header&, const std::string&, const std::string&);

}  // namespace satin::exporting::gguf
