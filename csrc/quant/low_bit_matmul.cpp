#include "quant/low_bit_matmul.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <mutex>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "ops/device.h"
#include "quant/codes.h"
#include "quant/column_limits.h"
#include "quant/packed_linear.h"
#include "quant/packed_rows.h"

namespace satin::quant {
namespace {

/// With shorter groups sums are converted so often that fake quantization is faster: a step of the 1.2b shape with
/// groups of 64 and zero points takes 273 ms by codes and 258 without (`satin bench step`).
constexpr int64_t kLeastGroup = 128;

}  // namespace

std::string reason_against_low_bit(const Scheme& scheme, int64_t out_features, int64_t in_features,
                                   at::ScalarType dtype, int capability) {
  if (scheme.activations != Activations::kInt8) return cat("activations ", to_string(scheme.activations));
  if (std::string reason = reason_against_packing(scheme, in_features); !reason.empty()) return reason;
  const int64_t group = scheme.group_size > 0 ? scheme.group_size : (in_features + 31) / 32 * 32;
  if (std::string reason = ops::reason_against_a8({out_features, in_features, scheme.bits, group}, dtype, capability);
      !reason.empty())
    return reason;
  if (dtype != at::kBFloat16) return cat("products in ", dtype);
  return group < kLeastGroup && scheme.groups(in_features) > 1
             ? cat("groups of ", group, ": a dense product is faster below ", kLeastGroup)
             : "";
}

std::string reason_against_low_bit(const QuantLinear& linear, at::ScalarType dtype) {
  if (linear.is_split()) return "its rows are spread over processes";
  const at::Tensor& weight = linear.master_weight();
  return reason_against_low_bit(linear.scheme(), weight.size(0), weight.size(1), dtype,
                                ops::compute_capability(weight.device()));
}

void say_low_bit_once(const Scheme& scheme, const std::string& why_not) {
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::string line =
      cat(describe(scheme), ": ",
          why_not.empty() ? "int8 codes times packed weights" : cat("fake-quantized products (", why_not, ")"));
  const std::lock_guard lock(mutex);
  if (said.insert(line).second) log_info(line);
}

ops::PackedWeight pack_for_product(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme) {
  const at::NoGradGuard no_grad;
  const ops::FakeQuantGrid grid = kernel_grid(scheme, weight.size(1));
  const ops::FakeQuantCodes parts = codes_of(weight, state, scheme);
  return ops::pack_codes(parts.codes, parts.scale, state.zero_point.defined() ? parts.zero : at::Tensor(),
                         static_cast<int>(constant_zero(grid)), scheme.bits, static_cast<int>(step_of(grid)),
                         storage_dtype(scheme.scale_dtype, at::kFloat),
                         storage_dtype(scheme.dequant_dtype, at::kFloat));
}

}  // namespace satin::quant
