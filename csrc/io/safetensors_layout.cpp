#include "io/safetensors_layout.h"

#include <algorithm>

#include "core/error.h"
#include "io/safetensors.h"
#include "io/safetensors_header.h"

namespace satin::io {

int64_t TensorSpec::num_elements() const {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

int64_t TensorSpec::size_bytes() const { return num_elements() * static_cast<int64_t>(at::elementSize(dtype)); }

SafetensorsLayout::SafetensorsLayout(const std::vector<TensorSpec>& specs,
                                     const std::map<std::string, std::string>& metadata) {
  auto in_order = specs;
  std::ranges::stable_sort(in_order, std::greater(),
                           [](const TensorSpec& spec) { return at::elementSize(spec.dtype); });
  std::vector<std::pair<std::string, HeaderEntry>> entries;
  int64_t end = 0;
  for (const TensorSpec& spec : in_order) {
    const int64_t begin = end;
    end += spec.size_bytes();
    entries.emplace_back(spec.name, HeaderEntry{safetensors_dtype(spec.dtype), spec.shape, static_cast<size_t>(begin),
                                                static_cast<size_t>(end)});
    const bool added = places_.emplace(spec.name, Place{spec, begin}).second;
    SATIN_CHECK(added, "tensor ", spec.name, " given twice");
  }
  header_ = format_safetensors_header(entries, metadata);
  const auto data_begin = static_cast<int64_t>(header_.size());
  for (auto& entry : places_) entry.second.begin += data_begin;
  size_bytes_ = data_begin + end;
}

}  // namespace satin::io
