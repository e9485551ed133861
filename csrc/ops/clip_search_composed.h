// kernels/clip_search.h written with tensor operators: any device.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "kernels/fake_quant.h"

namespace satin::ops {

/// weight [N, K] -> scale [N, G] and zero_point [N, G] (undefined where the grid has none). Works on blocks of rows of
/// about 16M weights, with a few temporaries of that size in the arithmetic dtype.
std::tuple<at::Tensor, at::Tensor> clip_search_composed(const at::Tensor& weight, const kernels::FakeQuantGrid& grid);

}  // namespace satin::ops
