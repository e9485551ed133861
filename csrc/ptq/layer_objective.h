// The cheap form of LGP: a layer's rounding error dW = W' - W judged by two second moments,
//   J = tr(dW H_in dW^T) + a tr(dW^T H_out dW),   dJ/dW' = 2 (dW H_in + a H_out dW),
// the mean squares of the error in W x and, weighted, in W^T g. H_in = E[x x^T], H_out = E[g g^T], g = df/dy.
// Source: gradient-preserving quantization (LGP), arXiv 2605.08894; its practical form is in block_training.h.
#pragma once
#include <ATen/ATen.h>

namespace satin::ptq {

struct LayerObjective {
  at::Tensor input;     ///< H_in [K, K]
  at::Tensor gradient;  ///< H_out [N, N], or undefined where the weight is 0
  double weight = 0;    ///< a

  /// Both terms of `error` [N, K], scalars on its device; the second is undefined without `gradient`.
  struct Terms {
    at::Tensor forward, backward;
  };
  Terms terms(const at::Tensor& error) const;
  /// dJ/dW' at W' = W + error.
  at::Tensor slope(const at::Tensor& error) const;
  /// J at an error and its slope: J is quadratic, so that no second product is needed.
  static at::Tensor value(const at::Tensor& error, const at::Tensor& slope) { return (error * slope).sum() / 2; }

  /// Weighs the second term with `ratio` times the first, at the error of a first guess.
  static LayerObjective balanced(const at::Tensor& input, const at::Tensor& gradient, const at::Tensor& error,
                                 double ratio);
};

}  // namespace satin::ptq
