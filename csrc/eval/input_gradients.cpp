// Shapes: B windows, T tokens, N predictions, n of a chunk, V vocabulary, H hidden.
#include "eval/input_gradients.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/logit_losses.h"

namespace satin::eval {
namespace {

/// d f / d hidden [B, T, H], f summed over the windows: the head in closed form, so that no graph holds [N, V].
at::Tensor gradient_of_hidden(models::Decoder& decoder, const at::Tensor& hidden, const at::Tensor& tokens,
                              int64_t chunk_tokens) {
  const at::NoGradGuard no_grad;
  const int64_t B = tokens.size(0), T = tokens.size(1), N = B * (T - 1);
  const at::Tensor rows = hidden.slice(1, 0, -1).reshape({N, hidden.size(2)});
  const at::Tensor targets = tokens.slice(1, 1).reshape({N}).to(hidden.device());
  const at::Tensor head = decoder.head().weight();
  at::Tensor gradient = at::empty_like(rows);
  for (int64_t start = 0; start < N; start += chunk_tokens) {
    const int64_t n = std::min(chunk_tokens, N - start);
    const at::Tensor logits = decoder.logits(rows.narrow(0, start, n));
    const at::Tensor weights = at::full({n}, 1.0 / static_cast<double>(T - 1), logits.options());
    at::Tensor slope = at::empty(logits.sizes(), head.options());
    ops::logit_losses({.cross_entropy = 1}, logits, {}, targets.narrow(0, start, n), weights, slope);
    gradient.narrow(0, start, n).copy_(at::mm(slope, head));
  }
  return at::constant_pad_nd(gradient.view({B, T - 1, -1}), {0, 0, 0, 1});
}

/// On CUDA attention's backward adds in any order unless told otherwise, and a model would then differ from itself.
class DeterministicBackward {
 public:
  DeterministicBackward() { at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false); }
  ~DeterministicBackward() { at::globalContext().setDeterministicAlgorithms(before_, before_warns_); }

 private:
  const bool before_ = at::globalContext().deterministicAlgorithms();
  const bool before_warns_ = at::globalContext().deterministicAlgorithmsWarnOnly();
};

at::Tensor norms(const at::Tensor& gradient) { return gradient.norm(2, -1); }

}  // namespace

InputGradients input_gradients(models::Decoder& decoder, const at::Tensor& tokens, int64_t chunk_tokens) {
  const at::AutoGradMode enable_grad(true);
  const at::Tensor x0 = decoder.embed(tokens).detach().requires_grad_();
  std::vector<at::Tensor> taps;
  const at::Tensor hidden = decoder.hidden({}, {.input_embeddings = x0, .taps = &taps});
  std::vector<at::Tensor> inputs = {x0};
  if (taps.size() > 1) inputs.push_back(taps[1]);
  const at::Tensor detached = hidden.detach();
  const at::Tensor gradient = gradient_of_hidden(decoder, detached, tokens, chunk_tokens);
  const DeterministicBackward deterministic;
  const auto gradients = torch::autograd::grad({hidden}, inputs, {gradient});
  return {detached, norms(gradients[0]), gradients.size() > 1 ? norms(gradients[1]) : at::Tensor()};
}

}  // namespace satin::eval
