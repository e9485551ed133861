#include "ops/act_quant.h"

#include <ATen/ATen.h>

#include "bench/benchmarks.h"
#include "bench/timer.h"
#include "core/error.h"

namespace satin::bench {
namespace {

using ops::ActivationFormat;

void measure(const Options& options, const std::string& name, int64_t rows, int64_t columns, ActivationFormat format,
             double& bandwidth) {
  if (name.find(options.only) == std::string::npos) return;
  if (bandwidth == 0) bandwidth = report_copy(options);            // not where nothing is measured
  const double bytes = 4.0 * static_cast<double>(rows * columns);  // bfloat16, read and written
  const size_t num_copies = copies_beyond_caches(options.device, bytes / 2);
  std::vector<at::Tensor> copies;
  while (copies.size() < num_copies)
    copies.push_back(at::randn({rows, columns}, at::TensorOptions().device(options.device)).to(at::kBFloat16));
  Measurement m = time_calls(options.device, static_cast<int>(num_copies), [&](int i) {
    return std::vector<at::Tensor>{ops::act_quant(copies[static_cast<size_t>(i) % num_copies], format)};
  });
  m.name = name;
  m.floor_us = 1e6 * bytes / bandwidth;
  m.note = "4 bytes a value";
  options.report(m);
}

}  // namespace

void bench_act_quant(const Options& options) {
  double bandwidth = 0;
  const int64_t tokens = options.device.is_cuda() ? 16384 : 512;
  struct Shape {
    const char* what;
    int64_t rows, columns;
  };
  for (const Shape& shape :
       {Shape{"activations", tokens, 2048}, {"activations", tokens, 8192}, {"KV rows", tokens * 8, 64}})
    for (const auto& [format, format_name] :
         {std::pair{ActivationFormat::kInt8, "int8"}, {ActivationFormat::kFloat8, "float8"}})
      measure(options, cat(shape.what, " ", format_name, " bfloat16 [", shape.rows, ", ", shape.columns, "]"),
              shape.rows, shape.columns, format, bandwidth);
}

}  // namespace satin::bench
