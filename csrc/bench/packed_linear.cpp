#include "ops/packed_linear.h"

#include <ATen/ATen.h>

#include <functional>

#include "bench/benchmarks.h"
#include "bench/timer.h"
#include "core/error.h"
#include "ops/a8_linear.h"
#include "ops/device.h"
#include "quant/codes.h"

namespace satin::bench {
namespace {

struct Matrix {
  int64_t rows, columns;
};
constexpr int64_t kGroupSize = 64;

/// Of normal random numbers: how fast a product of many rows is depends on how often its operands' bits change.
ops::PackedWeight quantized(at::Device device, const Matrix& matrix, const quant::Scheme& scheme) {
  const at::Tensor weight = at::randn({matrix.rows, matrix.columns}, at::TensorOptions(device)) * .02;
  const quant::QuantizedWeight parts = quant::round_to_nearest(weight, scheme);
  const at::Tensor zero = scheme.has_zero_point() ? parts.zero_point : at::Tensor();
  return ops::pack_codes(parts.codes, parts.scale.to(at::kFloat), zero,
                         zero.defined() ? 0 : parts.zero_point.flatten()[0].item<int>(), scheme.bits,
                         static_cast<int>(quant::code_step(scheme)), at::kBFloat16, at::kBFloat16);
}

/// A zero point a group, but for the signs of 1 bit.
quant::Scheme with_zeros(int bits) {
  return {bits == 1 ? quant::Method::kBinary : quant::Method::kMinMaxAsymmetric, bits, kGroupSize};
}

std::string gigabytes(double bytes, double us) { return cat(fixed(bytes / us * 1e-3, 1), " GB/s of weights"); }

void measure_dense(const Options& options, const Matrix& matrix, const at::Tensor& x, const std::string& name,
                   double bandwidth) {
  const double bytes = static_cast<double>(matrix.rows * matrix.columns) * static_cast<double>(x.itemsize());
  std::vector<at::Tensor> copies;
  while (copies.size() < copies_beyond_caches(options.device, bytes))
    copies.push_back(at::randn({matrix.rows, matrix.columns}, x.options()));
  Measurement m = time_calls(options.device, static_cast<int>(copies.size()), [&](int i) {
    at::linear(x, copies[static_cast<size_t>(i) % copies.size()]);
    return std::vector<at::Tensor>{};  // the next output takes the same memory, as in a model
  });
  m.name = name;
  m.floor_us = 1e6 * bytes / bandwidth;
  m.note = gigabytes(bytes, m.us);
  options.report(m);
}

void measure_packed(const Options& options, const Matrix& matrix, const quant::Scheme& scheme, const at::Tensor& x,
                    const std::string& name, ops::PackedPath path, double bandwidth) {
  std::vector<ops::PackedWeight> copies{quantized(options.device, matrix, scheme)};
  const auto bytes = static_cast<double>(copies[0].bytes());
  while (copies.size() < copies_beyond_caches(options.device, bytes)) {
    ops::PackedWeight copy = copies[0];
    for (at::Tensor* part : {&copy.words, &copy.scales, &copy.zeros})
      if (part->defined()) *part = part->clone();
    copies.push_back(copy);
  }
  Measurement m = time_calls(options.device, static_cast<int>(copies.size()), [&](int i) {
    ops::packed_linear(x, copies[static_cast<size_t>(i) % copies.size()], {}, path);
    return std::vector<at::Tensor>{};  // the next output takes the same memory, as in a model
  });
  m.name = name;
  m.floor_us = 1e6 * bytes / bandwidth;
  m.note = gigabytes(bytes, m.us);
  options.report(m);
}

/// int8 codes times packed weights, as training multiplies: x's rounding included.
void measure_int8(const Options& options, const Matrix& matrix, int bits, int64_t group_size, const at::Tensor& x,
                  const std::string& name, double dense_us) {
  const ops::PackedWeight packed =
      quantized(options.device, matrix, {quant::Method::kMinMaxSymmetric, bits, group_size});
  const at::Tensor weight = at::zeros({matrix.rows, matrix.columns}, x.options());
  Measurement m =
      time_calls(options.device, 1, [&](int) { return std::vector<at::Tensor>{ops::a8_linear(x, packed, weight)}; });
  m.name = name;
  const auto operations = 2.0 * static_cast<double>(x.size(0)) * static_cast<double>(matrix.rows * matrix.columns);
  m.note = cat(fixed(operations / m.us * 1e-6, 0), " TOP/s");
  if (dense_us > 0) m.note += cat(", dense / ", fixed(dense_us / m.us, 2));
  options.report(m);
}

/// A product of many tokens; `dense_us`: of the dense one to compare with, 0: of none. Returns its time.
double measure_product(const Options& options, const std::string& name, double dense_us,
                       const std::function<at::Tensor()>& product) {
  Measurement m = time_calls(options.device, 1, [&](int) { return std::vector<at::Tensor>{product()}; });
  m.name = name;
  if (dense_us > 0) m.note = cat("dense / ", fixed(dense_us / m.us, 2));
  options.report(m);
  return m.us;
}

/// Many tokens: dense bfloat16, bfloat16 and int8 with packed weights.
void bench_tokens(const Options& options) {
  const auto wanted = [&](const std::string& name) { return name.find(options.only) != std::string::npos; };
  for (const Matrix& matrix : {Matrix{8192, 8192}, Matrix{4096, 4096}, Matrix{14336, 4096}})
    for (const int64_t rows : {64, 256, 1024, 4096, 8192}) {
      const at::Tensor x =
          at::randn({rows, matrix.columns}, at::TensorOptions().device(options.device)).to(at::kBFloat16);
      const std::string of = cat("[", matrix.rows, ", ", matrix.columns, "] rows ", rows);
      double dense_us = 0;
      if (const std::string name = cat("tokens dense bfloat16 ", of); wanted(name)) {
        const at::Tensor weight = at::randn({matrix.rows, matrix.columns}, x.options());
        dense_us = measure_product(options, name, 0, [&] { return at::linear(x, weight); });
      }
      for (const int bits : {1, 2, 3, 4, 8})
        for (const auto& [path, path_name] :
             {std::pair{ops::PackedPath::kPacked, "packed"}, {ops::PackedPath::kFallback, "in pieces"}}) {
          const std::string name = cat("tokens ", path_name, " ", bits, " bits group ", kGroupSize, " ", of);
          if (!wanted(name)) continue;
          const ops::PackedWeight packed = quantized(options.device, matrix, with_zeros(bits));
          measure_product(options, name, dense_us, [&] { return ops::packed_linear(x, packed, {}, path); });
        }
      for (const int bits : {2, 4})
        for (const int64_t group : {int64_t{64}, int64_t{128}, matrix.columns}) {
          const std::string name = cat("tokens int8 ", bits, " bits ",
                                       group == matrix.columns ? "whole rows" : cat("group ", group), " ", of);
          if (wanted(name)) measure_int8(options, matrix, bits, group, x, name, dense_us);
        }
      double dense_gradient_us = 0;
      const at::Tensor grad = at::randn({rows, matrix.rows}, x.options());
      if (const std::string name = cat("tokens dense input gradient ", of); wanted(name)) {
        const at::Tensor weight = at::randn({matrix.rows, matrix.columns}, x.options());
        dense_gradient_us = measure_product(options, name, 0, [&] { return at::mm(grad, weight); });
      }
      if (const std::string name = cat("tokens input gradient 2 bits ", of); wanted(name)) {
        const ops::PackedWeight packed = quantized(options.device, matrix, with_zeros(2));
        measure_product(options, name, dense_gradient_us,
                        [&] { return at::mm(grad, ops::dequantize_rows(packed, 0, matrix.rows, grad.scalar_type())); });
      }
    }
}

/// What public kernels are timed with too (tests/bench/low_bit_peers.py): no zero points, and the path that
/// packed_linear itself takes. `bandwidth` is known once something was wanted.
void bench_peers(const Options& options, const std::function<bool(const std::string&)>& wanted,
                 const double& bandwidth) {
  constexpr int64_t kPeersGroup = 128;
  const std::pair<const char*, quant::Scheme> schemes[] = {{"1", {quant::Method::kBinary, 1, kPeersGroup}},
                                                           {"1.58", {quant::Method::kBitNet, 2, kPeersGroup}},
                                                           {"2", {quant::Method::kMinMaxSymmetric, 2, kPeersGroup}},
                                                           {"3", {quant::Method::kMinMaxSymmetric, 3, kPeersGroup}},
                                                           {"4", {quant::Method::kMinMaxSymmetric, 4, kPeersGroup}},
                                                           {"8", {quant::Method::kMinMaxSymmetric, 8, kPeersGroup}}};
  for (const Matrix& matrix : {Matrix{8192, 8192}, Matrix{4096, 4096}, Matrix{14336, 4096}})
    for (const int64_t rows : {1, 16, 256, 4096}) {
      const at::Tensor x =
          at::randn({rows, matrix.columns}, at::TensorOptions().device(options.device)).to(at::kBFloat16);
      const std::string of = cat("[", matrix.rows, ", ", matrix.columns, "] rows ", rows);
      if (const std::string name = cat("peers dense bfloat16 ", of); wanted(name))
        measure_dense(options, matrix, x, name, bandwidth);
      for (const auto& [bits, scheme] : schemes)
        if (const std::string name = cat("peers ", bits, " bits group ", kPeersGroup, " ", of); wanted(name))
          measure_packed(options, matrix, scheme, x, name, ops::PackedPath::kAuto, bandwidth);
    }
}

}  // namespace

void bench_packed_linear(const Options& options) {
  double bandwidth = 0;
  const at::ScalarType dtype = options.device.is_cuda() ? at::kBFloat16 : at::kFloat;
  const auto wanted = [&](const std::string& name) {
    if (name.find(options.only) == std::string::npos) return false;
    if (bandwidth == 0) bandwidth = report_copy(options);  // not where nothing is measured
    return true;
  };
  for (const Matrix& matrix : {Matrix{4096, 4096}, Matrix{8192, 2048}, Matrix{8192, 8192}, Matrix{14336, 4096}})
    for (const int64_t rows : {1, 4, 16, 64, 256}) {
      const at::Tensor x = at::randn({rows, matrix.columns}, at::TensorOptions().device(options.device)).to(dtype);
      const std::string of = cat("[", matrix.rows, ", ", matrix.columns, "] rows ", rows);
      if (const std::string name = cat("dense ", options.device.is_cuda() ? "bfloat16 " : "float32 ", of); wanted(name))
        measure_dense(options, matrix, x, name, bandwidth);
      for (const int bits : {1, 2, 3, 4, 8})
        for (const auto& [path, path_name] :
             {std::pair{ops::PackedPath::kPacked, "packed"}, {ops::PackedPath::kFallback, "in pieces"}}) {
          if (path == ops::PackedPath::kFallback && bits != 2) continue;  // it takes the same time with any
          if (path == ops::PackedPath::kFallback && options.device.is_cuda() && rows <= 16) continue;  // never chosen
          if (path == ops::PackedPath::kPacked && options.device.is_cuda() && rows > 16) continue;
          if (const std::string name = cat(path_name, " ", bits, " bits group ", kGroupSize, " ", of); wanted(name))
            measure_packed(options, matrix, with_zeros(bits), x, name, path, bandwidth);
        }
    }
  if (!options.device.is_cuda()) return;
  bench_peers(options, wanted, bandwidth);
  if (ops::compute_capability(options.device) == 90) bench_tokens(options);
}

}  // namespace satin::bench
