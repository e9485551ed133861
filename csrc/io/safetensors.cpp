#include "io/safetensors.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "core/error.h"
#include "core/nearest.h"
#include "io/safetensors_header.h"

namespace satin::io {
namespace {

constexpr std::pair<const char*, at::ScalarType> kTypes[] = {{"F64", at::kDouble},
                                                             {"F32", at::kFloat},
                                                             {"F16", at::kHalf},
                                                             {"BF16", at::kBFloat16},
                                                             {"F8_E4M3", at::kFloat8_e4m3fn},
                                                             {"F8_E5M2", at::kFloat8_e5m2},
                                                             {"I64", at::kLong},
                                                             {"I32", at::kInt},
                                                             {"I16", at::kShort},
                                                             {"I8", at::kChar},
                                                             {"U64", at::kUInt64},
                                                             {"U32", at::kUInt32},
                                                             {"U16", at::kUInt16},
                                                             {"U8", at::kByte},
                                                             {"BOOL", at::kBool}};

at::ScalarType type_of(const std::string& dtype) {
  for (const auto& [name, type] : kTypes)
    if (dtype == name) return type;
  SATIN_CHECK(false, "the header parser let dtype ", dtype, " through");
}

}  // namespace

std::string safetensors_dtype(at::ScalarType type) {
  for (const auto& [name, known] : kTypes)
    if (type == known) return name;
  SATIN_CHECK(false, "safetensors has no dtype for ", at::toString(type));
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(std::make_shared<MappedFile>(path)) {
  SafetensorsHeader header = parse_safetensors_header(file_->bytes(), path.string());
  data_begin_ = header.data_begin;
  metadata_ = std::move(header.metadata);
  for (auto& [name, entry] : header.tensors)
    tensors_.emplace(name, TensorInfo{type_of(entry.dtype), std::move(entry.shape), entry.begin, entry.end});
}

const std::filesystem::path& SafetensorsFile::path() const { return file_->path(); }

const TensorInfo& SafetensorsFile::info(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& tensor : tensors_) names.push_back(tensor.first);
  throw UserError(cat(file_->path().string(), ": no tensor named ", name, did_you_mean(name, names)));
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const TensorInfo& found = info(name);
  return view(found.begin, found.shape, found.dtype);
}

at::Tensor SafetensorsFile::rows(const std::string& name, int64_t first, int64_t count) const {
  SATIN_CHECK(first >= 0 && count >= 0, "rows ", first, " and ", count, " more of ", name);
  const TensorInfo& found = info(name);
  if (found.shape.empty() || count > found.shape[0] || first > found.shape[0] - count)
    throw UserError(cat(file_->path().string(), ": ", name, ": expected ", count, " rows from row ", first,
                        " on, found shape ", at::IntArrayRef(found.shape)));
  if (count == found.shape[0]) return tensor(name);
  // The header's check has seen that shape times element size is end - begin.
  const size_t row_bytes = (found.end - found.begin) / static_cast<size_t>(found.shape[0]);
  std::vector<int64_t> shape = found.shape;
  shape[0] = count;
  return view(found.begin + static_cast<size_t>(first) * row_bytes, shape, found.dtype);
}

at::Tensor SafetensorsFile::view(size_t begin, at::IntArrayRef shape, at::ScalarType dtype) const {
  const size_t size = static_cast<size_t>(c10::multiply_integers(shape)) * at::elementSize(dtype);
  if (size == 0) return at::empty(shape, dtype);
  const std::byte* data = file_->bytes().data() + data_begin_ + begin;
  const at::Tensor view = at::from_blob(
      const_cast<std::byte*>(data), shape,
      [file = file_, begin = data_begin_ + begin, size](void*) { file->release(begin, size); },
      at::TensorOptions(dtype));
  // Kernels assume aligned elements; a file need not have them.
  if (reinterpret_cast<uintptr_t>(data) % at::elementSize(dtype) == 0) return view;
  at::Tensor copy = at::empty(shape, dtype);
  std::copy(data, data + size, static_cast<std::byte*>(copy.data_ptr()));
  return copy;
}

}  // namespace satin::io
