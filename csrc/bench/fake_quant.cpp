#include <ATen/ATen.h>

#include "bench/benchmarks.h"
#include "bench/timer.h"
#include "core/error.h"
#include "quant/quantizer.h"

namespace satin::bench {
namespace {

struct Shape {
  int64_t rows, columns;
};

std::vector<Shape> linears(const std::string& model) {
  const models::ModelConfig config = named_shape(model);
  const int64_t h = config.hidden_size, f = config.intermediate_size, kv = config.num_kv_heads * config.head_dim;
  std::vector<Shape> all;
  for (int64_t layer = 0; layer < config.num_layers; ++layer)
    for (const Shape& shape : {Shape{h, h}, {kv, h}, {kv, h}, {h, h}, {f, h}, {f, h}, {h, f}}) all.push_back(shape);
  return all;
}

/// Matrices with gradients, quantized by one scheme.
struct Work {
  ops::FakeQuantBatch batch;
  std::vector<at::Tensor> grads;
  int64_t num_weights = 0, state_bytes = 0;  ///< of scales and zero points

  Work(const std::vector<Shape>& shapes, const quant::Scheme& scheme, at::ScalarType master, at::Device device) {
    const auto options = at::TensorOptions().device(device);
    for (const Shape& shape : shapes) {
      const at::Tensor w = at::randn({shape.rows, shape.columns}, options) * 0.02;
      batch.grid = quant::kernel_grid(scheme, shape.columns);
      const quant::QuantizerState state = quant::state_from_data(w, scheme);
      batch.weights.push_back(w.to(master));
      batch.scales.push_back(state.scale);
      state_bytes += static_cast<int64_t>(state.scale.nbytes());
      if (state.zero_point.defined()) {
        batch.zero_points.push_back(state.zero_point);
        state_bytes += static_cast<int64_t>(state.zero_point.nbytes());
      }
      batch.group_sizes.push_back(batch.grid.group_size);
      grads.push_back(at::randn({shape.rows, shape.columns}, options).to(at::kBFloat16));
      num_weights += shape.rows * shape.columns;
    }
  }
};

void measure(const Options& options, const std::string& name, const std::vector<Shape>& shapes,
             const quant::Scheme& scheme, at::ScalarType master, double bandwidth) {
  const bool forward = (name + " forward").find(options.only) != std::string::npos;
  const bool backward = (name + " backward").find(options.only) != std::string::npos;
  if (!forward && !backward) return;
  std::vector<Work> copies;
  copies.emplace_back(shapes, scheme, master, options.device);
  const double master_bytes = static_cast<double>(copies[0].batch.weights[0].element_size());
  const double num_weights = static_cast<double>(copies[0].num_weights);
  while (options.device.is_cuda() &&
         static_cast<double>(copies.size()) * num_weights * master_bytes < kBytesBeyondCaches)
    copies.emplace_back(shapes, scheme, master, options.device);
  const auto one = [&](const char* direction, double bytes_per_weight, int passes_over_state, const Call& call) {
    Measurement m = time_calls(options.device, static_cast<int>(copies.size()), call);
    m.name = name + " " + direction;
    m.floor_us = 1e6 * bytes_per_weight * num_weights / bandwidth;
    const double all_bytes =
        bytes_per_weight * num_weights + static_cast<double>(passes_over_state * copies[0].state_bytes);
    m.note = cat(bytes_per_weight, " bytes a weight; with scales and zero points ",
                 fixed(100 * 1e6 * all_bytes / bandwidth / m.us, 1), " %");
    options.report(m);
  };
  const auto work = [&](int i) -> const Work& { return copies[static_cast<size_t>(i) % copies.size()]; };
  if (forward)
    one("forward", master_bytes + 2, 1, [&](int i) { return ops::fake_quant_many(work(i).batch, at::kBFloat16); });
  if (backward)
    one("backward", 2 * master_bytes + 2, 2, [&](int i) {
      auto found = ops::fake_quant_backward_many(work(i).grads, work(i).batch);
      found.weights.insert(found.weights.end(), found.scales.begin(), found.scales.end());
      found.weights.insert(found.weights.end(), found.zero_points.begin(), found.zero_points.end());
      return found.weights;
    });
}

/// torch's own operator, one scale a row and no gradient for it: what there is without a framework.
void measure_torch(const Options& options, at::ScalarType master, double bandwidth) {
  const int64_t n = options.device.is_cuda() ? 8192 : 1024;
  const std::string name =
      cat("torch fake_quantize_per_channel 4 bits per row ", dtype_name(master), " [", n, ", ", n, "]");
  if (name.find(options.only) == std::string::npos) return;
  const auto float_options = at::TensorOptions().device(options.device);
  const at::Tensor w = (at::randn({n, n}, float_options) * 0.02).to(master), grad = at::randn_like(w);
  const at::Tensor scale = at::full({n}, 0.01, float_options), zero = at::zeros({n}, float_options);
  const at::Tensor mask =
      std::get<1>(at::fake_quantize_per_channel_affine_cachemask(w, scale, zero, /*axis=*/0, -8, 7));
  const auto one = [&](const char* direction, int64_t tensors, const Call& call) {
    Measurement m = time_calls(options.device, 1, call);  // one copy: it is far beyond the caches
    m.name = cat(name, " ", direction);
    m.floor_us = 1e6 * static_cast<double>(tensors * n * n * w.element_size()) / bandwidth;
    options.report(m);
  };
  one("forward", 2, [&](int) {
    return std::vector{std::get<0>(at::fake_quantize_per_channel_affine_cachemask(w, scale, zero, /*axis=*/0, -8, 7))};
  });
  one("backward", 3,
      [&](int) { return std::vector{at::fake_quantize_per_channel_affine_cachemask_backward(grad, mask)}; });
}

}  // namespace

void bench_fake_quant(const Options& options) {
  const double bandwidth = report_copy(options);
  using quant::Method;
  const std::vector<Shape> shapes = options.device.is_cuda()
                                        ? std::vector<Shape>{{8192, 8192}, {14336, 4096}, {4096, 11008}}
                                        : std::vector<Shape>{{1024, 1024}};
  for (const at::ScalarType master : {at::kBFloat16, at::kFloat}) {
    for (const Shape& shape : shapes)
      for (const int64_t group : {64, 128, -1})
        for (const quant::Scheme& scheme :
             {quant::Scheme{Method::kLsq, 4, group}, quant::Scheme{Method::kSeq, 2, group},
              quant::Scheme{Method::kLsqAsymmetric, 2, group}})
          measure(options,
                  cat(quant::to_string(scheme.method), " ", scheme.bits, " bits ",
                      group < 0 ? std::string("per row") : cat("group ", group), " ", dtype_name(master), " [",
                      shape.rows, ", ", shape.columns, "]"),
                  {shape}, scheme, master, bandwidth);
    measure_torch(options, master, bandwidth);
    if (!options.device.is_cuda()) continue;
    for (const char* model : {"29m", "135m", "1.2b"})
      measure(options, cat("all weights of ", model, " lsq_asymmetric 2 bits group 64 ", dtype_name(master)),
              linears(model), quant::Scheme{Method::kLsqAsymmetric, 2, 64}, master, bandwidth);
  }
}

}  // namespace satin::bench
