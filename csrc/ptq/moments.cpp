#include "ptq/moments.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <limits>

#include "core/error.h"

namespace satin::ptq {

void add_products(at::Tensor& sums, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  const at::Tensor rows = x.detach().reshape({-1, x.size(-1)}).to(sums.device()).to(sums.scalar_type());
  sums.addmm_(rows.t(), rows);
}

InputMoments::InputMoments(const std::vector<quant::QuantLinear*>& linears) : linears_(linears) {
  for (quant::QuantLinear* linear : linears_)
    linear->watch([this, linear](const at::Tensor& x, const at::Tensor&) { see(*linear, x); });
}

InputMoments::~InputMoments() {
  for (quant::QuantLinear* linear : linears_) linear->watch({});
}

void InputMoments::see(const quant::QuantLinear& linear, const at::Tensor& x) {
  if (!sum_of_.contains(&linear)) {
    shares_[&linear] = last_x_.defined() && x.is_same(last_x_);
    if (!shares_[&linear]) {
      const auto dtype = nn::statistics_dtype(x.scalar_type());
      sums_.push_back({at::zeros({x.size(-1), x.size(-1)}, x.options().dtype(dtype).requires_grad(false)), 0});
      last_sum_ = sums_.size() - 1;
    }
    sum_of_[&linear] = last_sum_;
  }
  last_x_ = x;
  last_sum_ = sum_of_[&linear];
  if (shares_[&linear]) return;
  Sum& sum = sums_[last_sum_];
  add_products(sum.products, x);
  sum.num_rows += x.numel() / x.size(-1);
}

at::Tensor InputMoments::of(const quant::QuantLinear& linear) const {
  const auto found = sum_of_.find(&linear);
  SATIN_CHECK(found != sum_of_.end(), linear.name(), " has read nothing");
  const Sum& sum = sums_[found->second];
  return sum.products / static_cast<double>(sum.num_rows);
}

namespace {

/// tr(A M B^T) for A, B [n, k], M [k, k].
double inner(const at::Tensor& a, const at::Tensor& b, const at::Tensor& moments) {
  return at::mm(a, moments).mul_(b).sum(at::kDouble).item<double>();
}

double cosine(const at::Tensor& a, const at::Tensor& b, const at::Tensor& moments) {
  return inner(a, b, moments) / std::sqrt(inner(a, a, moments) * inner(b, b, moments));
}

}  // namespace

Fidelity fidelity(const at::Tensor& weight, const at::Tensor& rounded, const at::Tensor& input,
                  const at::Tensor& gradient) {
  const at::NoGradGuard no_grad;
  const at::Tensor w = weight.to(input.scalar_type()), q = rounded.to(input.scalar_type());
  Fidelity found;
  found.error = inner(q - w, q - w, input) / inner(w, w, input);
  found.forward_cosine = cosine(q, w, input);
  found.gradient_cosine =
      gradient.defined() ? cosine(q.t(), w.t(), gradient) : std::numeric_limits<double>::quiet_NaN();
  return found;
}

}  // namespace satin::ptq
