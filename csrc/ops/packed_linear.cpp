#include "ops/packed_linear.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "ops/a8_kernels.h"
#include "ops/decode_kernels.h"
#include "ops/device.h"
#include "ops/over_rows.h"

namespace satin::ops {
namespace {

/// On the CPU more rows than this are computed faster once the weight is dequantized (`satin bench packed_linear`).
constexpr int64_t kMostCpuRows = 64;
constexpr int64_t kMostDecodeRows = kernels::kMostDecodeRows;
constexpr int64_t kLeastA16Rows = kMostDecodeRows + 1;
/// Of 8 bits more are slower than dequantizing them first; of fewer bits none (`satin bench packed_linear`).
constexpr int64_t kMostA16RowsOf8Bits = 1024;
/// Weights of the fallback's pieces: what a processor's caches hold, and on a GPU a layer's whole matrix.
constexpr int64_t kPieceWeights = int64_t{1} << 22;
constexpr int64_t kPieceWeightsCuda = int64_t{1} << 26;

/// Why no packed kernel computes it for more rows than decoding has, on a GPU; empty: one does.
std::string cannot_many(const PackedProblem& p) {
  const std::string rows = cat("more than ", kMostDecodeRows, " rows at once");
  if (p.num_rows > std::numeric_limits<int>::max()) return "more rows than an int counts";
  if (p.dtype != at::kBFloat16) return cat(rows, " in ", p.dtype);
  if (p.scale_dtype != at::kBFloat16) return cat(rows, " with scales in ", p.scale_dtype);
  if (p.dequant_dtype != at::kBFloat16) return cat(rows, " of a weight in ", p.dequant_dtype);
  return "";
}

/// The same of any rows and device.
std::string cannot(const PackedProblem& p) {
  if (!p.is_cuda) return p.dtype == at::kDouble ? cat("no packed kernel in ", p.dtype) : "";
  if (p.compute_capability != 90) return cat("the packed kernel needs sm_90, found sm_", p.compute_capability);
  if (p.dtype != at::kBFloat16 && p.dtype != at::kHalf) return cat("no packed kernel in ", p.dtype, " on CUDA");
  if (p.num_columns % 8 != 0) return "rows are not a multiple of 16 bytes";
  if (p.num_groups > 1 && (p.group_size & (p.group_size - 1)) != 0) return "groups are not a power of two";
  return p.num_rows < kLeastA16Rows ? "" : cannot_many(p);
}

void say_once(bool is_cuda, const PackedChoice& choice) {
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::string line =
      cat("packed weights on ", is_cuda ? "cuda" : "cpu", ": ",
          choice.path == PackedPath::kPacked ? "packed kernel" : "dequantized in pieces", " (", choice.reason, ")");
  const std::lock_guard lock(mutex);
  if (said.insert(line).second) log_info(line);
}

at::Tensor multiply_on_cpu(const at::Tensor& x, const PackedWeight& weight, const at::Tensor& bias) {
  const at::Tensor wide = x.to(at::kFloat).contiguous(), wide_bias = bias.defined() ? bias.to(at::kFloat) : bias;
  at::Tensor y = at::empty({x.size(0), weight.shape.num_rows}, at::kFloat);
  const kernels::PackedMatmulArgs<float> args{weight.matrix(),
                                              x.size(0),
                                              wide.const_data_ptr<float>(),
                                              y.mutable_data_ptr<float>(),
                                              bias.defined() ? wide_bias.const_data_ptr<float>() : nullptr,
                                              nullptr};
  over_rows({weight.shape.row_bricks(), kernels::kBrickRows * weight.shape.num_columns},
            [&](int64_t begin, int64_t end) { kernels::packed_matmul_cpu(args, begin, end); });
  return y.to(x.scalar_type());
}

at::Tensor multiply_in_pieces(const at::Tensor& x, const PackedWeight& weight, const std::optional<at::Tensor>& bias) {
  const int64_t num_rows = weight.shape.num_rows, piece_weights = x.is_cuda() ? kPieceWeightsCuda : kPieceWeights;
  const int64_t bricks = std::max<int64_t>(1, piece_weights / (weight.shape.num_columns * kernels::kBrickRows));
  const int64_t step = bricks * kernels::kBrickRows;
  if (step >= num_rows) return at::linear(x, dequantize_rows(weight, 0, num_rows, x.scalar_type()), bias);
  at::Tensor y = at::empty({x.size(0), num_rows}, x.options());
  for (int64_t first = 0; first < num_rows; first += step) {
    const int64_t last = std::min(num_rows, first + step);
    const at::Tensor piece = dequantize_rows(weight, first, last, x.scalar_type());
    y.slice(1, first, last).copy_(at::linear(x, piece, bias ? std::optional(bias->slice(0, first, last)) : bias));
  }
  return y;
}

}  // namespace

PackedProblem problem_of(const at::Tensor& x, const PackedWeight& weight, at::ScalarType dtype) {
  return {.is_cuda = x.is_cuda(),
          .compute_capability = compute_capability(x.device()),
          .num_rows = x.size(0),
          .num_columns = weight.shape.num_columns,
          .num_groups = weight.shape.num_groups(),
          .group_size = weight.shape.group_size,
          .bits = weight.shape.bits,
          .dtype = dtype,
          .scale_dtype = weight.scales.scalar_type(),
          .dequant_dtype = weight.dequant_dtype};
}

PackedChoice choose_packed_path(const PackedProblem& problem, PackedPath wanted) {
  const std::string why_not = cannot(problem);
  if (wanted == PackedPath::kFallback) return {wanted, "asked for"};
  if (wanted == PackedPath::kPacked) {
    SATIN_CHECK(why_not.empty(), "packed_linear: ", why_not);
    return {wanted, "asked for"};
  }
  if (!why_not.empty()) return {PackedPath::kFallback, why_not};
  if (problem.is_cuda && problem.bits == 8 && problem.num_rows > kMostA16RowsOf8Bits)
    return {PackedPath::kFallback, cat("8 bits, more than ", kMostA16RowsOf8Bits, " rows at once")};
  if (problem.is_cuda)
    return {PackedPath::kPacked,
            cat(problem.num_rows < kLeastA16Rows ? "up to " : "more than ", kMostDecodeRows, " rows at once")};
  if (problem.num_rows > kMostCpuRows) return {PackedPath::kFallback, cat("more than ", kMostCpuRows, " rows at once")};
  return {PackedPath::kPacked, cat("up to ", kMostCpuRows, " rows at once")};
}

at::Tensor packed_linear(const at::Tensor& x, const PackedWeight& weight, const std::optional<at::Tensor>& bias,
                         PackedPath wanted) {
  const kernels::PackedShape& shape = weight.shape;
  SATIN_CHECK(x.dim() > 0 && x.size(-1) == shape.num_columns && x.is_floating_point(), "x ", x.sizes(), " ",
              x.scalar_type(), " of ", shape.num_columns, " columns");
  SATIN_CHECK(x.device() == weight.words.device(), x.device(), " and ", weight.words.device());
  SATIN_CHECK(!bias || (bias->numel() == shape.num_rows && bias->scalar_type() == x.scalar_type()), "bias");
  std::vector<int64_t> out_shape = x.sizes().vec();
  out_shape.back() = shape.num_rows;
  const at::Tensor rows = x.reshape({-1, shape.num_columns}).contiguous();
  if (rows.size(0) == 0) return at::empty(out_shape, x.options());
  const PackedChoice choice = choose_packed_path(problem_of(rows, weight, x.scalar_type()), wanted);
  say_once(x.is_cuda(), choice);
  if (choice.path == PackedPath::kFallback) return multiply_in_pieces(rows, weight, bias).view(out_shape);
  const at::Tensor offset = bias ? bias->contiguous() : at::Tensor();
  return (!x.is_cuda()                   ? multiply_on_cpu(rows, weight, offset)
          : rows.size(0) < kLeastA16Rows ? packed_decode(rows, weight, offset)
                                         : packed_a16(rows, weight, offset))
      .view(out_shape);
}

}  // namespace satin::ops
