// One table of activation cases for values, codes, gradients and devices, and their expected values: the formulas of
// kernels/act_quant.h written with tensor operators, integers in fp64 and e4m3 by PyTorch's own conversion. To cover
// something new, add a case.
#pragma once
#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "ops/act_quant.h"

namespace satin::test {

enum class RowFill { kGaussian, kZeros, kDenormal, kHuge, kTies, kDamaged };

struct ActQuantCase {
  ops::ActivationFormat format;
  int64_t num_rows, num_columns;
  at::ScalarType dtype;
  RowFill fill;
  std::string name() const;
};

/// Every format x dtype x row length (odd, part of a warp, some warps, a block, beyond its registers), and every fill.
const std::vector<ActQuantCase>& act_quant_cases();

struct ActQuantTensors {
  at::Tensor x, grad, scale;  ///< scale [1]: for the static form, clips some values
};
/// Fresh tensors, a function of the case and the seed. kDamaged has a row with NaN, one with each infinity, and others.
ActQuantTensors make_activations(const ActQuantCase& test_case, uint64_t seed);

struct ExpectedActivations {
  at::Tensor value;  ///< in x's dtype
  at::Tensor level;  ///< fp64; 0 in damaged rows
  at::Tensor scale;  ///< [rows], in the arithmetic dtype; NaN for damaged rows
};
/// `scale`: the static form's, or undefined.
ExpectedActivations expected_activations(ops::ActivationFormat format, const at::Tensor& x, const at::Tensor& scale);

/// Gradients of the static form in fp64, and the sum of the absolute terms of the scale's: what rounding scales with.
struct ExpectedActivationGradients {
  at::Tensor x, scale, scale_magnitude;
};
ExpectedActivationGradients expected_gradients(ops::ActivationFormat format, const ActQuantTensors& in);

/// Equal, where NaN equals NaN.
bool same(const at::Tensor& a, const at::Tensor& b);

}  // namespace satin::test
