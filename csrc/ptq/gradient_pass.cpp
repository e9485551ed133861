#include "ptq/gradient_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/log.h"
#include "losses/cross_entropy.h"
#include "losses/head.h"
#include "ptq/moments.h"

namespace satin::ptq {

at::Tensor gradient_of_hidden(models::Decoder& decoder, const at::Tensor& hidden, const at::Tensor& tokens,
                              const at::Tensor& scored) {
  const at::NoGradGuard no_grad;
  const at::Tensor counted = scored.to(at::kDouble);
  const at::Tensor weights = counted / counted.sum(1, /*keepdim=*/true).clamp_min(1);
  const auto device = hidden.device();
  const losses::CrossEntropy cross_entropy;
  losses::HeadInputs inputs;
  inputs.hidden = hidden.reshape({-1, hidden.size(2)});
  inputs.head = decoder.head().weight().detach();
  inputs.targets = tokens.roll(-1, 1).reshape({-1}).to(device);
  inputs.weights = weights.reshape({-1}).to(device).to(nn::statistics_dtype(hidden.scalar_type()));
  return losses::head_losses(inputs, {{&cross_entropy, 1}}, 0).grad_hidden.view(hidden.sizes());
}

namespace {

/// Shows each linear's output gradient to its moments while it lives.
class OutputMoments {
 public:
  OutputMoments(const std::vector<quant::QuantLinear*>& linears, BlockGradients& into, const at::Tensor& like)
      : linears_(linears) {
    for (quant::QuantLinear* linear : linears_) {
      at::Tensor& sums = into.moments[linear->name()];
      if (!sums.defined())
        sums = at::zeros({linear->out_features(), linear->out_features()}, like.options().requires_grad(false));
      linear->watch([&sums](const at::Tensor&, const at::Tensor& y) {
        if (y.requires_grad()) y.register_hook([&sums](const at::Tensor& gradient) { add_products(sums, gradient); });
      });
    }
  }
  ~OutputMoments() {
    for (quant::QuantLinear* linear : linears_) linear->watch({});
  }
  OutputMoments(const OutputMoments&) = delete;
  OutputMoments& operator=(const OutputMoments&) = delete;

 private:
  const std::vector<quant::QuantLinear*>& linears_;
};

}  // namespace

int64_t gradient_bytes(const std::vector<quant::QuantLinear*>& linears, int64_t element_size) {
  int64_t elements = 0;
  for (const quant::QuantLinear* linear : linears) elements += linear->out_features() * linear->out_features();
  return elements * element_size;
}

int64_t blocks_a_pass(const std::vector<std::vector<quant::QuantLinear*>>& linears, int64_t element_size,
                      int64_t budget_bytes) {
  int64_t widest = 1;
  for (const auto& block : linears) widest = std::max(widest, gradient_bytes(block, element_size));
  return std::max<int64_t>(1, budget_bytes / widest);
}

std::vector<BlockGradients> collect_gradients(const Blocks& blocks,
                                              const std::vector<std::vector<quant::QuantLinear*>>& linears,
                                              int64_t first, int64_t last, bool with_streams) {
  SATIN_CHECK(0 <= first && first < last && last <= blocks.size(), "blocks ", first, " to ", last);
  const auto num_blocks = static_cast<size_t>(blocks.size());
  const auto begin = static_cast<size_t>(first), end = static_cast<size_t>(last);
  std::vector<BlockGradients> found(end - begin);
  std::vector<at::Tensor> streams(with_streams ? end - begin + 1 : 0);
  for (at::Tensor& stream : streams) stream = blocks.empty_stream();
  const nn::BuildOptions& build = blocks.decoder().parameters().options();
  const at::Tensor like =
      at::empty({0}, at::TensorOptions().dtype(nn::statistics_dtype(build.compute_dtype)).device(build.device));
  const auto keep = [&](size_t boundary, const at::Tensor& gradient, const at::Tensor& which) {
    if (!with_streams || boundary < begin || boundary > end) return;
    at::Tensor& stream = streams[boundary - begin];
    stream.index_copy_(0, which.to(stream.device()), gradient.to(stream.device()));
  };
  size_t done = 0;
  for (const at::Tensor& which : blocks.batches()) {
    stop_if_asked();
    std::vector<at::Tensor> inputs;
    at::Tensor x;
    {
      const at::NoGradGuard no_grad;
      x = blocks.decoder().embed(blocks.text().tokens.index_select(0, which));
      for (size_t i = 0; i < num_blocks; ++i) {
        inputs.push_back(x);
        x = blocks.run(static_cast<int64_t>(i), x, which);
      }
    }
    const at::AutoGradMode enable_grad(true);
    x = x.detach().requires_grad_();
    const at::Tensor hidden = blocks.decoder().final_norm(x);
    const Calibration& text = blocks.text();
    at::Tensor gradient =
        torch::autograd::grad({hidden}, {x},
                              {gradient_of_hidden(blocks.decoder(), hidden.detach(), text.tokens.index_select(0, which),
                                                  text.loss_mask.index_select(0, which))})[0];
    for (size_t i = num_blocks; i-- > begin;) {
      keep(i + 1, gradient, which);
      std::optional<OutputMoments> watching;
      if (i < end) watching.emplace(linears[i], found[i - begin], like);
      const at::Tensor input = inputs[i].detach().requires_grad_();
      const at::Tensor output = blocks.run(static_cast<int64_t>(i), input, which);
      gradient = torch::autograd::grad({output}, {input}, {gradient})[0];
      inputs.pop_back();
    }
    keep(begin, gradient, which);
    progress(cat("gradients of the full-precision model: batch ", ++done, " of ", blocks.batches().size()));
  }
  end_progress();
  const auto num_tokens = static_cast<double>(blocks.text().tokens.numel());
  for (size_t i = 0; i < found.size(); ++i) {
    for (auto& [name, sums] : found[i].moments) sums.div_(num_tokens);
    if (with_streams) {
      found[i].at_input = streams[i];
      found[i].at_output = streams[i + 1];
    }
  }
  return found;
}

}  // namespace satin::ptq
