// What a safetensors file that is to be written looks like: it follows from names, dtypes and shapes alone.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace satin::io {

/// A tensor that is to be written.
struct TensorSpec {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;

  int64_t num_elements() const;
  int64_t size_bytes() const;
};

/// Larger element sizes first (so that all are aligned), otherwise in the order given, without gaps. Names are unique
/// (InternalError).
class SafetensorsLayout {
 public:
  struct Place {
    TensorSpec spec;
    int64_t begin;  ///< byte of the file
  };

  explicit SafetensorsLayout(const std::vector<TensorSpec>& specs,
                             const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  /// The file's first bytes, up to the first tensor.
  const std::string& header() const { return header_; }
  const std::map<std::string, Place>& places() const { return places_; }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  std::string header_;
  std::map<std::string, Place> places_;
  int64_t size_bytes_ = 0;
};

}  // namespace satin::io
