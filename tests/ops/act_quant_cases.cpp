#include "ops/act_quant_cases.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <limits>

#include "core/error.h"

namespace satin::test {
using ops::ActivationFormat;

namespace {

double top_of(ActivationFormat format) {
  return format == ActivationFormat::kInt8 ? 127 : format == ActivationFormat::kInt4 ? 7 : 448;
}

at::ScalarType arithmetic(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

/// A quotient of two tensors in their dtype's IEEE division, found in fp64: two roundings of a quotient are one.
at::Tensor quotient(const at::Tensor& a, const at::Tensor& b, at::ScalarType dtype) {
  return (a.to(at::kDouble) / b.to(at::kDouble)).to(dtype);
}

at::Tensor nearest(ActivationFormat format, const at::Tensor& u) {
  const at::Tensor clipped = u.clamp(-top_of(format), top_of(format));
  return format == ActivationFormat::kFloat8 ? clipped.to(at::kFloat8_e4m3fn).to(at::kFloat).to(at::kDouble)
                                             : at::round(clipped).to(at::kDouble);
}

}  // namespace

std::string ActQuantCase::name() const {
  static const char* formats[] = {"int8", "int4", "float8"};
  static const char* fills[] = {"gaussian", "zeros", "denormal", "huge", "ties", "damaged"};
  return cat(formats[static_cast<int>(format)], " [", num_rows, ", ", num_columns, "] ", toString(dtype), ", ",
             fills[static_cast<int>(fill)]);
}

const std::vector<ActQuantCase>& act_quant_cases() {
  static const std::vector<ActQuantCase> cases = [] {
    std::vector<ActQuantCase> all;
    for (ActivationFormat format : {ActivationFormat::kInt8, ActivationFormat::kInt4, ActivationFormat::kFloat8})
      for (at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
        for (int64_t columns : {1, 7, 8, 16, 64, 65, 100, 128, 512, 1000, 1024, 2048, 5000, 8192, 9000, 16392})
          all.push_back({format, columns <= 128 ? 37 : 3, columns, dtype, RowFill::kGaussian});
        for (RowFill fill : {RowFill::kZeros, RowFill::kDenormal, RowFill::kHuge, RowFill::kTies, RowFill::kDamaged})
          for (int64_t columns : {64, 100, 2048}) all.push_back({format, 6, columns, dtype, fill});
        all.push_back({format, 0, 64, dtype, RowFill::kGaussian});
        all.push_back({format, 3, 0, dtype, RowFill::kGaussian});
      }
    return all;
  }();
  return cases;
}

ActQuantTensors make_activations(const ActQuantCase& test_case, uint64_t seed) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto real = at::TensorOptions().dtype(at::kDouble);
  const double top = top_of(test_case.format);
  const std::vector<int64_t> shape{test_case.num_rows, test_case.num_columns};
  // Rows of very different sizes.
  at::Tensor x = at::randn(shape, generator, real) * at::exp(2 * at::randn({shape[0], 1}, generator, real));
  double scale = 1.5 / top;
  switch (test_case.fill) {
    case RowFill::kGaussian:
      break;
    case RowFill::kZeros:
      x.zero_();
      break;
    case RowFill::kDenormal:
      x *= 1e-39;
      scale = 1e-20;  // below the floor
      break;
    case RowFill::kHuge:
      x *= 1e35;
      scale *= 1e35;
      break;
    case RowFill::kTies: {  // scales that are powers of two, halves, and e4m3's ties
      const bool float8 = test_case.format == ActivationFormat::kFloat8;
      x = at::randint(-16, 17, shape, generator, real) * (float8 ? 0.5 : top / 14);
      if (float8) x *= at::pow(2.0, at::randint(-9, 6, shape, generator, real));
      if (!float8) x = at::round(x * 2) / 2;
      x.select(1, 0).fill_(top);
      scale = 1;
      break;
    }
    case RowFill::kDamaged:
      x[0][test_case.num_columns - 1] = std::nan("");
      x[2][0] = std::numeric_limits<double>::infinity();
      x[5][test_case.num_columns / 2] = -std::numeric_limits<double>::infinity();
      x[4][0] = 0.0;
  }
  x = x.to(test_case.dtype);
  return {x, at::randn(shape, generator, real).to(test_case.dtype), at::full({1}, scale, real).to(arithmetic(x))};
}

ExpectedActivations expected_activations(ActivationFormat format, const at::Tensor& x, const at::Tensor& scale) {
  const at::ScalarType dtype = arithmetic(x);
  const at::Tensor wide = x.to(dtype);
  at::Tensor s;
  if (scale.defined()) {
    s = scale.clamp_min(1e-5).expand({x.size(0)});
  } else {
    const at::Tensor largest = x.size(1) == 0 ? at::zeros({x.size(0)}, wide.options()) : wide.abs().amax(-1);
    s = quotient(largest.clamp_min(1e-5), at::full_like(largest, top_of(format)), dtype);
    s = at::where(wide.isfinite().all(-1), s, std::nan(""));
  }
  const at::Tensor column = s.unsqueeze(-1), level = nearest(format, quotient(wide, column, dtype));
  const at::Tensor value = (column.to(at::kDouble) * level).to(dtype).to(x.scalar_type());
  return {value, level.nan_to_num(), s};
}

ExpectedActivationGradients expected_gradients(ActivationFormat format, const ActQuantTensors& in) {
  const double top = top_of(format), values = static_cast<double>(in.x.size(-1));
  const double multiplier = 1 / std::sqrt(format == ActivationFormat::kFloat8 ? values : values * top);
  const at::Tensor s = in.scale.clamp_min(1e-5);
  const at::Tensor rounded = quotient(in.x, s, arithmetic(in.x)), inside = rounded.abs() <= top;
  const at::Tensor u = in.x.to(at::kDouble) / s.to(at::kDouble), grad = in.grad.to(at::kDouble);
  const at::Tensor end = u.sign() * top;
  const at::Tensor terms = grad * at::where(inside, nearest(format, rounded) - u, end);
  return {at::where(inside, grad, 0), terms.sum() * multiplier, (terms.abs().sum() + 1e-30) * multiplier};
}

bool same(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && at::equal(a.isnan(), b.isnan()) &&
         at::equal(a.nan_to_num(), b.nan_to_num());
}

}  // namespace satin::test
