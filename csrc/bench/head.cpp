#include "losses/head.h"

#include <ATen/ATen.h>

#include "bench/benchmarks.h"
#include "bench/timer.h"
#include "core/error.h"
#include "losses/cross_entropy.h"
#include "losses/distillation.h"
#include "losses/smoothness.h"
#include "ops/device.h"

namespace satin::bench {
namespace {

struct Mix {
  const char* name;
  std::vector<losses::Term> terms;
};

/// The losses alone on one chunk of logits: the floor is to read logits once and to write the gradient.
void measure_kernel(const Options& options, const std::string& name, const Mix& mix, int64_t rows, int64_t columns,
                    double bandwidth) {
  if (name.find(options.only) == std::string::npos) return;
  const auto fp32 = at::TensorOptions().device(options.device);
  const at::Tensor student = at::randn({rows, columns}, fp32) * 3, teacher = student + at::randn({rows, columns}, fp32);
  const at::Tensor targets = at::randint(columns, {rows}, fp32.dtype(at::kLong)), weights = at::ones({rows}, fp32);
  ops::LogitLosses losses;
  for (const losses::Term& term : mix.terms) term.loss->set(losses, term.weight);
  Measurement m = time_calls(options.device, 1, [&](int) {
    at::Tensor grad = at::empty({rows, columns}, fp32.dtype(at::kBFloat16));
    return std::vector<at::Tensor>{ops::logit_losses(losses, student, teacher, targets, weights, grad), grad};
  });
  m.name = name;
  const double bytes = losses.needs_teacher() ? 10 : 6;
  m.floor_us = 1e6 * bytes * static_cast<double>(rows * columns) / bandwidth;
  m.note = cat(fixed(bytes, 0), " bytes a logit: read once, bfloat16 gradient written; sums take a second reading");
  options.report(m);
}

}  // namespace

void bench_head(const Options& options) {
  const losses::CrossEntropy ce;
  const losses::Distillation kd(1), reverse(1, 0);
  const losses::Smoothness smoothness(40, 2);
  const std::vector<Mix> mixes = {{"ce", {{&ce, 1}}},
                                  {"kd", {{&kd, 1}}},
                                  {"reverse kd", {{&reverse, 1}}},
                                  {"ce + kd + smoothness", {{&ce, 1}, {&kd, 1}, {&smoothness, 0.5}}}};
  struct Shape {
    const char* name;
    int64_t tokens;
  };
  const bool cuda = options.device.is_cuda();
  const double bandwidth = report_copy(options);
  for (const Shape& shape :
       cuda ? std::vector<Shape>{{"1.2b", 16384}, {"29m", 98304}} : std::vector<Shape>{{"tiny", 512}}) {
    const models::ModelConfig c = named_shape(shape.name);
    const auto bf16 = at::TensorOptions().device(options.device).dtype(at::kBFloat16);
    const auto random = [&](int64_t rows) { return at::randn({rows, c.hidden_size}, bf16); };
    losses::HeadInputs in;
    in.hidden = random(shape.tokens);
    in.head = random(c.vocab_size) * 0.05;
    in.teacher_hidden = random(shape.tokens);
    in.teacher_head = random(c.vocab_size) * 0.05;
    in.targets = at::randint(c.vocab_size, {shape.tokens}, bf16.dtype(at::kLong));
    in.weights = at::full({shape.tokens}, 1.0 / static_cast<double>(shape.tokens), bf16.dtype(at::kFloat));
    const losses::HeadChunks chunks(0, shape.tokens, c.vocab_size, at::kBFloat16, options.device);
    const std::string where = cat(" ", shape.name, " ", shape.tokens, " tokens");
    for (const Mix& mix : mixes) {
      measure_kernel(options, cat("losses ", mix.name, " [", chunks.logits, ", ", c.vocab_size, "]"), mix,
                     chunks.logits, c.vocab_size, bandwidth);
      const std::string name = cat("head and losses ", mix.name, where);
      if (name.find(options.only) == std::string::npos) continue;
      const auto run = [&](int) {
        const losses::HeadResult result = losses::head_losses(in, mix.terms, 0);
        return std::vector<at::Tensor>{result.grad_hidden, result.grad_head};
      };
      std::string note;
      if (cuda) {
        ops::reset_peak_memory(options.device);
        const int64_t before = ops::peak_memory_bytes(options.device);
        int64_t results = 0;
        for (const at::Tensor& x : run(0)) results += static_cast<int64_t>(x.nbytes());
        note = cat(fixed(static_cast<double>(ops::peak_memory_bytes(options.device) - before - results) / (1 << 30), 2),
                   " GiB beyond the two gradients");
      }
      Measurement m = time_calls(options.device, 1, run);
      m.name = name;
      m.note = note;
      options.report(m);
    }
    const std::string stored_name = cat("head and losses ce + kd + smoothness, stored teacher", where);
    if (stored_name.find(options.only) != std::string::npos) {
      const auto fp32 = bf16.dtype(at::kFloat);
      losses::HeadInputs stored = in;
      const at::Tensor logits = std::get<0>((at::randn({shape.tokens, 40}, fp32) * 3).sort(1, /*descending=*/true));
      const at::Tensor ids = at::arange(40, fp32.dtype(at::kInt)) * (c.vocab_size / 40);
      stored.stored_teacher = {ids.expand({shape.tokens, 40}).contiguous(), logits,
                               at::full({shape.tokens}, std::log(0.1), fp32),
                               at::full({shape.tokens}, std::log(0.9), fp32)};
      Measurement m = time_calls(options.device, 1, [&](int) {
        const losses::HeadResult result = losses::head_losses(stored, mixes.back().terms, 0);
        return std::vector<at::Tensor>{result.grad_hidden, result.grad_head};
      });
      m.name = stored_name;
      options.report(m);
    }
    const std::string name = cat("teacher's product", where);
    if (name.find(options.only) == std::string::npos) continue;
    Measurement m = time_calls(options.device, 1, [&](int) {
      for (int64_t start = 0; start < shape.tokens; start += chunks.logits)
        losses::head_logits(in.teacher_hidden.narrow(0, start, std::min(chunks.logits, shape.tokens - start)),
                            in.teacher_head);
      return std::vector<at::Tensor>{};
    });
    m.name = name;
    m.note = "part of the teacher's forward, and of every time above that has a teacher";
    options.report(m);
  }
}

}  // namespace satin::bench
