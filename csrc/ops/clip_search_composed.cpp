#include "ops/clip_search_composed.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/clip_search.h"
#include "ops/checks.h"
#include "ops/ops.h"

namespace satin::ops {
namespace {

constexpr int64_t kWeightsPerBlock = int64_t{1} << 24;

/// Rows of a block. The forward itself measures each candidate, so that both agree on every rounding.
std::tuple<at::Tensor, at::Tensor> search_rows(const at::Tensor& weight, const FakeQuantGrid& grid) {
  const at::Tensor w = weight.to(arithmetic_dtype(weight)).contiguous();
  const at::Tensor groups = w.view({w.size(0), -1, grid.group_size});
  const bool asymmetric = grid.kind == Grid::kAsymmetric;
  // Divisors are tensors of the device: CUDA multiplies by the reciprocal of a plain number, which is another rounding.
  const auto number = [&](double value) { return at::full({}, value, w.options()); };
  const at::Tensor low = groups.amin(-1).clamp_max(0), high = groups.amax(-1).clamp_min(0);
  const at::Tensor largest = at::maximum(-low, high);
  const at::Tensor top = number((1 << grid.bits) - 1);
  const at::Tensor highest = number(grid.kind == Grid::kSymmetric ? (1 << (grid.bits - 1)) - 1 : 1);
  FakeQuantGrid exact = grid;
  exact.dequant_rounding = Rounding::kNone;

  at::Tensor best_error, best_scale, best_zero;
  const kernels::ClipLadder ladder = kernels::clip_ladder(grid.kind);
  for (int i = ladder.first; i >= ladder.last; --i) {
    const at::Tensor ratio = number(i) / number(kernels::kClipSteps);
    at::Tensor scale, zero;
    if (asymmetric) {
      scale = effective_scale((high * ratio - low * ratio) / top, grid);
      zero = at::clamp(at::round(-(low * ratio) / scale), number(0), top);
    } else {
      scale = effective_scale(largest * ratio / highest, grid);
    }
    const at::Tensor value =
        ops::fake_quant(w, scale, asymmetric ? std::optional(zero) : std::nullopt, exact, w.scalar_type());
    const at::Tensor error = value.sub_(w).square_().view(groups.sizes()).sum(-1);
    if (i == ladder.first) {
      best_error = error;
      best_scale = scale;
      best_zero = zero;
      continue;
    }
    const at::Tensor better = error < best_error;
    best_error = at::where(better, error, best_error);
    best_scale = at::where(better, scale, best_scale);
    if (asymmetric) best_zero = at::where(better, zero, best_zero);
  }
  return {best_scale, best_zero};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> clip_search_composed(const at::Tensor& weight, const FakeQuantGrid& grid) {
  const at::NoGradGuard no_grad;
  const kernels::Extent extent = checked_extent(grid, weight);
  const int64_t rows = std::max<int64_t>(1, kWeightsPerBlock / std::max<int64_t>(1, extent.num_columns));
  std::vector<at::Tensor> scales, zeros;
  for (int64_t row = 0; row < extent.num_rows; row += rows) {
    auto [scale, zero] = search_rows(weight.narrow(0, row, std::min(rows, extent.num_rows - row)), grid);
    scales.push_back(scale);
    if (zero.defined()) zeros.push_back(zero);
  }
  return {at::cat(scales), zeros.empty() ? at::Tensor() : at::cat(zeros)};
}

}  // namespace satin::ops
