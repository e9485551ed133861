// Second moments of what linear layers read: E[x x^T], the Hessian of a layer's squared error up to a factor of 2.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "quant/quant_linear.h"

namespace satin::ptq {

/// Watches the inputs of `linears` while it lives. Layers that read the same tensor (q, k and v) share one matrix.
class InputMoments {
 public:
  explicit InputMoments(const std::vector<quant::QuantLinear*>& linears);
  ~InputMoments();
  InputMoments(const InputMoments&) = delete;
  InputMoments& operator=(const InputMoments&) = delete;

  /// sum x x^T / n over all rows seen, [in, in], fp32 (fp64), on the layer's device. InternalError when it saw none.
  at::Tensor of(const quant::QuantLinear& linear) const;

 private:
  struct Sum {
    at::Tensor products;
    int64_t num_rows = 0;
  };
  void see(const quant::QuantLinear& linear, const at::Tensor& x);

  std::vector<quant::QuantLinear*> linears_;
  std::vector<Sum> sums_;
  std::map<const quant::QuantLinear*, size_t> sum_of_;
  std::map<const quant::QuantLinear*, bool> shares_;
  at::Tensor last_x_;
  size_t last_sum_ = 0;
};

/// sums += rows^T rows, of x [..., n].
void add_products(at::Tensor& sums, const at::Tensor& x);

/// What rounding W [out, in] to W' does, by second moments: of y = W x in moments `input` [in, in], of W^T g in
/// `gradient` [out, out]; without `gradient` its cosine is NaN.
struct Fidelity {
  double error = 0;                        ///< |W'X - WX|^2 / |WX|^2
  double forward_cosine, gradient_cosine;  ///< cos(W'X, WX), cos(W'^T G, W^T G)
};
Fidelity fidelity(const at::Tensor& weight, const at::Tensor& rounded, const at::Tensor& input,
                  const at::Tensor& gradient);

}  // namespace satin::ptq
