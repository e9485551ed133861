#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "nn/linear_factory.h"

namespace satin::nn {
namespace {

class DenseLinear : public Linear {
 public:
  DenseLinear(at::Tensor weight, at::Tensor bias, const ParameterStore& store)
      : weight_(std::move(weight)), bias_(std::move(bias)), options_(store.shared_options()) {}

  at::Tensor forward(const at::Tensor& x) override {
    return at::linear(x, weight(), bias_.defined() ? std::optional(bias_.to(options_->compute_dtype)) : std::nullopt);
  }
  at::Tensor weight(at::ScalarType dtype) override { return weight_.to(dtype); }
  at::Tensor weight() override { return weight(options_->compute_dtype); }
  at::Tensor lookup(const at::Tensor& indices) override { return at::embedding(weight_, indices); }

 private:
  at::Tensor weight_, bias_;
  std::shared_ptr<const BuildOptions> options_;
};

class TiedLinear : public Linear {
 public:
  explicit TiedLinear(Linear& owner) : owner_(owner) {}
  at::Tensor forward(const at::Tensor& x) override { return at::linear(x, owner_.weight()); }
  at::Tensor weight(at::ScalarType dtype) override { return owner_.weight(dtype); }
  at::Tensor weight() override { return owner_.weight(); }
  at::Tensor logits(const at::Tensor& hidden, at::ScalarType dtype) override { return owner_.logits(hidden, dtype); }
  PackedParts packed() override { return {owner_.packed().weight, {}}; }

 private:
  Linear& owner_;
};

}  // namespace

at::Tensor Linear::lookup(const at::Tensor& indices) { return at::embedding(weight(), indices); }

at::Tensor Linear::logits(const at::Tensor& hidden, at::ScalarType dtype) {
  return head_logits(hidden, weight(), dtype);
}

at::Tensor head_logits(const at::Tensor& hidden, const at::Tensor& weight, at::ScalarType dtype) {
  if (weight.scalar_type() == dtype) return at::linear(hidden, weight);
  const bool differentiable = at::GradMode::is_enabled() && (weight.requires_grad() || hidden.requires_grad());
  if (!hidden.is_cuda() || differentiable) return at::linear(hidden.to(dtype), weight.to(dtype));
  auto shape = hidden.sizes().vec();
  shape.back() = weight.size(0);
  return at::mm(hidden.reshape({-1, hidden.size(-1)}), weight.t(), dtype).view(shape);
}

LinearFactory dense_linear_factory() {
  return [](const LinearSpec& spec, ParameterStore& store) -> std::unique_ptr<Linear> {
    SATIN_CHECK(spec.in_features > 0 && spec.out_features > 0, spec.name, " has no elements");
    at::Tensor weight = store.add_gathered(spec.name + ".weight", {spec.out_features, spec.in_features}, spec.role);
    at::Tensor bias;
    if (spec.bias) bias = store.add(spec.name + ".bias", {spec.out_features}, Role::kBias);
    return std::make_unique<DenseLinear>(weight, bias, store);
  };
}

std::unique_ptr<Linear> tied_linear(Linear& owner) { return std::make_unique<TiedLinear>(owner); }

}  // namespace satin::nn
