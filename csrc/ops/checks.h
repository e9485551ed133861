// What every binding of an operator checks before it hands pointers to a kernel.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "kernels/fake_quant.h"

namespace satin::ops {

/// The dispatcher passes plain numbers. Throws InternalError for unknown ones.
kernels::FakeQuantGrid make_grid(int64_t kind, int64_t bits, int64_t group_size, int64_t scale_rounding,
                                 int64_t dequant_rounding);

/// fp64 for fp64 weights, else fp32.
at::ScalarType arithmetic_dtype(const at::Tensor& weight);

/// Throws c10::Error for a dtype that CUDA kernels do not take.
kernels::Dtype kernel_dtype(at::ScalarType dtype);

/// Inputs as kernels take them: contiguous, on one device, scale and zero point in the arithmetic dtype.
struct FakeQuantInputs {
  kernels::FakeQuantGrid grid;
  kernels::Extent extent;
  at::Tensor weight, scale, zero_point;  ///< zero_point undefined where the grid has none

  /// Throws InternalError naming what does not fit.
  FakeQuantInputs(const kernels::FakeQuantGrid& grid, const at::Tensor& weight, const at::Tensor& scale,
                  const std::optional<at::Tensor>& zero_point);
};

/// Every weight of a batch with its group size. Throws InternalError for lists of different lengths.
std::vector<FakeQuantInputs> batch_inputs(kernels::FakeQuantGrid grid, at::TensorList weights, at::TensorList scales,
                                          at::TensorList zero_points, at::IntArrayRef group_sizes);

/// Contiguous weights of a batch that has no scales yet, with their extents; outputs made for them.
struct DataScaleOutputs {
  kernels::FakeQuantGrid grid;
  std::vector<at::Tensor> weights, scales, zero_points;  ///< zero_points empty where the grid has none
  std::vector<kernels::Extent> extents;

  /// Throws InternalError naming what does not fit.
  DataScaleOutputs(const kernels::FakeQuantGrid& grid, at::TensorList weights, at::IntArrayRef group_sizes);
};

/// A contiguous weight that has no scale yet, its columns' importance in the arithmetic dtype, and outputs made for it.
struct ClipSearchTensors {
  kernels::FakeQuantGrid grid;
  kernels::Extent extent;
  at::Tensor weight;
  at::Tensor importance;         ///< undefined: all one
  at::Tensor scale, zero_point;  ///< zero_point undefined where the grid has none

  /// Throws InternalError naming what does not fit; for the importance's values it waits for the device.
  ClipSearchTensors(const kernels::FakeQuantGrid& grid, const at::Tensor& weight,
                    const std::optional<at::Tensor>& importance);
};

/// Checks the weight alone; returns its size.
kernels::Extent checked_extent(const kernels::FakeQuantGrid& grid, const at::Tensor& weight);

}  // namespace satin::ops
