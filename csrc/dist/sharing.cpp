#include "dist/sharing.h"

#include <ATen/ATen.h>

namespace satin::dist {

at::ScalarType Sharing::dtype_for(const at::Tensor& gradient) const {
  return gradient.scalar_type() == at::kDouble ? at::kDouble : reduce_dtype.value_or(gradient.scalar_type());
}

double Sharing::waited_s() const {
  double seconds = world->waited_s();
  if (shards != world) seconds += shards->waited_s();
  if (replicas != world) seconds += replicas->waited_s();
  return seconds;
}

const Sharing& not_shared() {
  static const Sharing alone;
  return alone;
}

GradientReduce::GradientReduce(const Sharing& sharing, const std::vector<at::Tensor>& gradients, bool split)
    : sharing_(&sharing), split_(split) {
  if (gradients.empty()) return;
  const at::ScalarType dtype = sharing.dtype_for(gradients[0]);
  if (split)
    rows_ = RowReduce(*sharing.shards, gradients, dtype);
  else
    list_ = ListReduce(*sharing.world, gradients, dtype);
}

std::vector<at::Tensor> GradientReduce::finish() {
  if (!split_) return list_.finish();
  std::vector<at::Tensor> rows = rows_.finish();
  if (sharing_->replicas->size() == 1 || rows.empty()) return rows;
  return ListReduce(*sharing_->replicas, rows, rows[0].scalar_type()).finish();
}

}  // namespace satin::dist
