// Where models and quantizers meet: a model asks the factory for each of its linear layers at construction.
// (Layers are chosen here, never swapped in a built model.)
#pragma once
#include <functional>
#include <memory>

#include "nn/parameters.h"
#include "ops/decode_rows.h"

namespace satin::nn {

/// A layer's weight as codes, where it multiplies with them, and its bias in the compute dtype, or undefined.
struct PackedParts {
  ops::PackedWeight* weight = nullptr;
  at::Tensor bias = {};
};

/// y = x W^T + b.
class Linear {
 public:
  virtual ~Linear() = default;
  /// x [..., in] in the compute dtype -> [..., out] in the compute dtype. Differentiable.
  virtual at::Tensor forward(const at::Tensor& x) = 0;
  /// The weight [out, in] that forward multiplies with, attached to the graph, cast to `dtype` last: asked for in fp32
  /// it takes fp32 gradients (the LM head's come in fp32, see losses/head.h).
  virtual at::Tensor weight(at::ScalarType dtype) = 0;
  /// The same in the compute dtype.
  virtual at::Tensor weight() = 0;
  /// Rows of the weight by index, [...] int64 -> [..., in]: what an embedding does. Differentiable.
  virtual at::Tensor lookup(const at::Tensor& indices);
  /// Products with the weight that leave in `dtype`, that of statistics, without bias: what an LM head does.
  /// Differentiable.
  virtual at::Tensor logits(const at::Tensor& hidden, at::ScalarType dtype);
  /// For those that do more than multiply, and for full precision: none.
  virtual PackedParts packed() { return {}; }
};

/// hidden [..., H], weight [V, H] -> [..., V] in `dtype`, fp32 or fp64: on CUDA the operands may be narrower.
at::Tensor head_logits(const at::Tensor& hidden, const at::Tensor& weight, at::ScalarType dtype);

struct LinearSpec {
  std::string name;  ///< module name, "model.layers.0.mlp.up_proj"; parameters are name + ".weight", ".bias", ...
  int64_t in_features, out_features;
  bool bias = false;
  Role role = Role::kWeight;  ///< kEmbedding: a table of rows, see Linear::lookup
};

using LinearFactory = std::function<std::unique_ptr<Linear>(const LinearSpec&, ParameterStore&)>;

/// Full precision: weight (and bias) parameters, cast to the compute dtype on use.
LinearFactory dense_linear_factory();

/// A linear with the weight of another one, which outlives it (the tied LM head).
std::unique_ptr<Linear> tied_linear(Linear& owner);

}  // namespace satin::nn
