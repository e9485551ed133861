// The operators. `grid` and the roundings are the enumerators' numbers (kernels/fake_quant.h).
#include <torch/library.h>

#include "ops/anchors.h"

TORCH_LIBRARY(satin, m) {
  m.def(
      "fake_quant(Tensor weight, Tensor scale, Tensor? zero_point, int grid, int bits, int group_size, "
      "int scale_rounding, int dequant_rounding, ScalarType dtype) -> Tensor");
  m.def(
      "fake_quant_backward(Tensor grad, Tensor weight, Tensor scale, Tensor? zero_point, int grid, int bits, "
      "int group_size, int scale_rounding) -> (Tensor, Tensor, Tensor)");
  m.def(
      "fake_quant_codes(Tensor weight, Tensor scale, Tensor? zero_point, int grid, int bits, int group_size, "
      "int scale_rounding) -> (Tensor, Tensor, Tensor)");
  m.def(
      "fake_quant_many(Tensor[] weights, Tensor[] scales, Tensor[] zero_points, int grid, int bits, int[] group_sizes, "
      "int scale_rounding, int dequant_rounding, ScalarType dtype) -> Tensor[]");
  m.def(
      "fake_quant_backward_many(Tensor[] grads, Tensor[] weights, Tensor[] scales, Tensor[] zero_points, int grid, "
      "int bits, int[] group_sizes, int scale_rounding) -> (Tensor[], Tensor[], Tensor[])");
  m.def(
      "data_scale_many(Tensor[] weights, int grid, int bits, int[] group_sizes, int scale_rounding) "
      "-> (Tensor[], Tensor[])");
  m.def(
      "clip_search(Tensor weight, Tensor? importance, int grid, int bits, int group_size, int scale_rounding) "
      "-> (Tensor, Tensor)");
}

namespace satin::ops {
void anchor_schema() {}
}  // namespace satin::ops
