#include "ptq/gradient_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "core/log.h"
#include "losses/cross_entropy.h"
#include "losses/head.h"
#include "ptq/moments.h"

namespace satin::ptq {
namespace {

/// df/dhidden [B, T, H], f summed over the sequences.
at::Tensor gradient_of_hidden(const Blocks& blocks, const at::Tensor& hidden, const at::Tensor& which) {
  const at::NoGradGuard no_grad;
  const Calibration& text = blocks.text();
  const at::Tensor tokens = text.tokens.index_select(0, which);
  const at::Tensor scored = text.loss_mask.index_select(0, which).to(at::kDouble);
  const at::Tensor weights = scored / scored.sum(1, /*keepdim=*/true).clamp_min(1);
  const auto device = hidden.device();
  const losses::CrossEntropy cross_entropy;
  losses::HeadInputs inputs;
  inputs.hidden = hidden.reshape({-1, hidden.size(2)});
  inputs.head = blocks.decoder().head().weight().detach();
  inputs.targets = tokens.roll(-1, 1).reshape({-1}).to(device);
  inputs.weights = weights.reshape({-1}).to(device).to(nn::statistics_dtype(hidden.scalar_type()));
  return losses::head_losses(inputs, {{&cross_entropy, 1}}, 0).grad_hidden.view(hidden.sizes());
}

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

std::vector<BlockGradients> collect_gradients(const Blocks& blocks,
                                              const std::vector<std::vector<quant::QuantLinear*>>& linears,
                                              bool with_streams) {
  const auto num_blocks = static_cast<size_t>(blocks.size());
  std::vector<BlockGradients> found(num_blocks);
  std::vector<at::Tensor> streams(with_streams ? num_blocks + 1 : 0);
  for (at::Tensor& stream : streams) stream = blocks.empty_stream();
  const at::Tensor like = at::empty({0}, blocks.empty_stream().options());
  const auto keep = [&](size_t boundary, const at::Tensor& gradient, const at::Tensor& which) {
    if (with_streams)
      streams[boundary].index_copy_(0, which.to(streams[boundary].device()), gradient.to(streams[boundary].device()));
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
    at::Tensor gradient = torch::autograd::grad({hidden}, {x}, {gradient_of_hidden(blocks, hidden.detach(), which)})[0];
    for (size_t i = num_blocks; i-- > 0;) {
      keep(i + 1, gradient, which);
      const OutputMoments watching(linears[i], found[i], like);
      const at::Tensor input = inputs[i].detach().requires_grad_();
      const at::Tensor output = blocks.run(static_cast<int64_t>(i), input, which);
      gradient = torch::autograd::grad({output}, {input}, {gradient})[0];
      inputs.pop_back();
    }
    keep(0, gradient, which);
    progress(cat("gradients of the full-precision model: batch ", ++done, " of ", blocks.batches().size()));
  }
  end_progress();
  const auto num_tokens = static_cast<double>(blocks.text().tokens.numel());
  for (size_t i = 0; i < num_blocks; ++i) {
    for (auto& [name, sums] : found[i].moments) sums.div_(num_tokens);
    if (with_streams) {
      found[i].at_input = streams[i];
      found[i].at_output = streams[i + 1];
    }
  }
  return found;
}

}  // namespace satin::ptq
