#include "bench/benchmarks.h"
#include "bench/timer.h"
#include "bench/training.h"
#include "core/error.h"
#include "ops/device.h"

namespace satin::bench {
namespace {

const std::string kDense = "dense";

struct Method {
  std::string name;
  bool int8 = false, by_codes = true;
  int64_t group_size = -1;

  std::string text() const {
    if (!int8) return name;
    return cat(name, " int8 ", group_size > 0 ? cat("group ", group_size) : "rows",
               by_codes ? "" : ", low_bit_matmul never");
  }
};

/// Time on the device (CUDA: a graph of whole steps, so that a slow host does not count) and, in the note, as the
/// trainer would see it.
Measurement time_steps(Training& training, at::Device device) {
  const Measurement eager = training.time_from_host([&] { training.step(); });
  if (!device.is_cuda()) return eager;
  Measurement graph = time_calls(device, 1, [&](int) {
    training.step();
    return std::vector<at::Tensor>{};
  });
  graph.note = cat("launched from the host ", fixed(eager.us * 1e-3, 1), " ms; ");
  return graph;
}

}  // namespace

void bench_step(const Options& options) {
  struct Case {
    const char* shape;
    int64_t sequences, length;
  };
  const bool cuda = options.device.is_cuda();
  const std::vector<Case> cases = cuda ? std::vector<Case>{{"1.2b", 8, 2048}, {"135m", 16, 1024}, {"29m", 96, 1024}}
                                       : std::vector<Case>{{"tiny", 4, 64}};
  for (const Case& one : cases) {
    double dense_us = 0;
    std::vector<Method> methods{{kDense}, {"minmax_asymmetric"}, {"lsq"}, {"lsq_asymmetric"}};
    for (const bool by_codes : {true, false}) {
      methods.push_back({"bitnet", true, by_codes, 0});
      methods.push_back({"lsq", true, by_codes, 128});
      methods.push_back({"lsq_asymmetric", true, by_codes, 64});
    }
    for (const Method& method : methods) {
      const std::string name =
          cat(one.shape, " ", one.sequences, " x ", one.length, " float32 masters ", method.text());
      if (name.find(options.only) == std::string::npos) continue;
      Training training({.shape = one.shape,
                         .method = method.name,
                         .sequences = one.sequences,
                         .length = one.length,
                         .device = options.device,
                         .loss = cross_entropy_alone(),
                         .int8_activations = method.int8,
                         .low_bit_products = method.by_codes,
                         .group_size = method.group_size});
      Measurement m = time_steps(training, options.device);
      m.name = name;
      if (method.name == kDense) dense_us = m.us;
      const double tokens = static_cast<double>(one.sequences * one.length);
      m.note += cat(fixed(tokens / m.us * 1e6, 0), " tokens/s");
      if (const auto peak = report::peak_flops_per_second(ops::device_name(options.device)))
        m.note += cat(
            ", MFU ",
            fixed(100 * tokens * report::training_flops_per_token(training.size(), one.length) / (m.us * 1e-6) / *peak,
                  1),
            " %");
      if (method.name != kDense && dense_us > 0)
        m.note += cat(", dense + ", fixed((m.us - dense_us) * 1e-3, 2), " ms (", fixed(100 * (m.us / dense_us - 1), 2),
                      " %)");
      options.report(m);
    }
  }
}

}  // namespace satin::bench
