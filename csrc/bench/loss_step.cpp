#include <optional>

#include "bench/benchmarks.h"
#include "bench/training.h"
#include "core/error.h"

namespace satin::bench {
namespace {

config::Loss make_loss(double ce, double kd, double smoothness, double rate, int64_t depth = 1) {
  config::Loss loss;
  loss.ce.weight = ce;
  loss.kd.weight = kd;
  loss.smoothness.weight = smoothness;
  loss.neighbourhood.rate = rate;
  loss.neighbourhood.depth = depth;
  return loss;
}

}  // namespace

void bench_loss_step(const Options& options) {
  struct Case {
    const char* name;
    config::Loss loss;
    int64_t stored_top_k;
  };
  const std::vector<Case> cases = {{"ce", make_loss(1, 0, 0, 0), 0},
                                   {"kd", make_loss(0, 1, 0, 0), 0},
                                   {"ce + kd + smoothness", make_loss(1, 1, 0.5, 0), 0},
                                   {"kd at neighbours", make_loss(0, 1, 0, 0.15), 0},
                                   {"kd at walks of two", make_loss(0, 1, 0, 0.15, 2), 0},
                                   {"kd at stored neighbours", make_loss(0, 1, 0, 0.15), 48},
                                   {"ce + smoothness, stored teacher", make_loss(1, 0, 0.5, 0), 40},
                                   {"ce + kd + smoothness, stored teacher", make_loss(1, 1, 0.5, 0), 40}};
  struct Shape {
    const char* name;
    int64_t sequences, length;
  };
  const bool cuda = options.device.is_cuda();
  for (const Shape& shape :
       cuda ? std::vector<Shape>{{"1.2b", 8, 2048}, {"29m", 96, 1024}} : std::vector<Shape>{{"tiny", 4, 64}}) {
    std::optional<double> ce_us, kd_us, teacher_us;
    for (const Case& one : cases) {
      const std::string name = cat(shape.name, " ", shape.sequences, " x ", shape.length, " lsq_asymmetric ", one.name);
      if (name.find(options.only) == std::string::npos) continue;
      Training training({.shape = shape.name,
                         .method = "lsq_asymmetric",
                         .sequences = shape.sequences,
                         .length = shape.length,
                         .device = options.device,
                         .loss = one.loss,
                         .stored_top_k = one.stored_top_k});
      Measurement m = training.time_from_host([&] { training.step(); });
      m.name = name;
      const double tokens = static_cast<double>(shape.sequences * shape.length);
      m.note = cat(fixed(tokens / m.us * 1e6, 0), " tokens/s");
      const auto beside = [&](const char* what, const std::optional<double>& us) {
        if (us) m.note += cat(", ", what, " + ", fixed((m.us - *us) * 1e-3, 2), " ms (", fixed(m.us / *us, 3), "x)");
      };
      beside("ce", ce_us);
      if (one.loss.neighbourhood.rate > 0) beside("kd", kd_us);
      const bool online = one.loss.kd.weight > 0 && (one.stored_top_k == 0 || one.loss.neighbourhood.rate > 0);
      if (teacher_us && online && ce_us)
        m.note += cat(", without the teacher's forward ce + ", fixed((m.us - *teacher_us - *ce_us) * 1e-3, 2), " ms");
      options.report(m);
      if (std::string(one.name) == "ce") ce_us = m.us;
      if (std::string(one.name) != "kd") continue;
      kd_us = m.us;
      Measurement teacher = training.time_from_host([&] { training.teacher_forward(); });
      teacher.name = cat(shape.name, " ", shape.sequences, " x ", shape.length, " teacher's forward");
      teacher.note = "its head's product included";
      teacher_us = teacher.us;
      options.report(teacher);
    }
  }
}

}  // namespace satin::bench
