// A number of the device that the host reads as soon as it is made, whatever was queued after it.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <optional>

namespace satin::ops {

class HostValue {
 public:
  /// `scalar`: one number of any dtype. Queues its copy on the current stream.
  explicit HostValue(const at::Tensor& scalar);
  /// Waits for the copy; Tensor::item would wait for the stream.
  double get() const;

 private:
  at::Tensor host_;
  std::optional<c10::Event> copied_;  ///< CUDA
};

}  // namespace satin::ops
