#include "ptq/quantize_blocks.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "ptq/awq.h"
#include "ptq/gptq.h"
#include "quant/codes.h"

namespace satin::ptq {
namespace {

using Linears = std::vector<quant::QuantLinear*>;

class Quantizing {
 public:
  Quantizing(models::Decoder& decoder, const quant::Registry& registry, const Calibration& text,
             const config::Config& config, const StoredBlocks& stored)
      : registry_(registry),
        config_(config),
        ptq_(config.ptq),
        stored_(stored),
        blocks_(decoder, text, config.train.micro_batch_size, config.ptq.keep_on_host),
        linears_(linears_of_blocks(registry, blocks_.size())) {}

  void run(const std::function<void(const BlockReport&)>& done) {
    registry_.enable(false);
    if (needs_gradients() && !stored_.has_gradients(blocks_.size())) make_gradients();
    const int64_t first = stored_.num_finished();
    if (first > 0)
      log_info(cat("going on after block ", first, " of ", blocks_.size(), ", which an earlier run finished"));
    quantized_ = blocks_.embed();
    if (trains_blocks()) full_ = quantized_;
    for (int64_t block = 0; block < blocks_.size(); ++block) {
      const double start = now_s();
      if (block < first) {
        replay(block);
        continue;
      }
      BlockReport report = quantize(block);
      report.seconds = now_s() - start;
      done(report);  // first: a kill in between makes the block again, and with it its report
      stored_.save_block(block, blocks_.decoder());
    }
    registry_.enable(true);
  }

 private:
  bool trains_blocks() const { return ptq::trains_blocks(ptq_); }
  bool needs_gradients() const { return ptq::needs_gradients(ptq_); }
  void enable(int64_t block, bool on) const {
    for (const auto* module : registry_.in_block(block)) module->enable(on);
  }

  void make_gradients() const {
    const double start = now_s();
    const auto element_size = static_cast<int64_t>(
        c10::elementSize(nn::statistics_dtype(blocks_.decoder().parameters().options().compute_dtype)));
    const int64_t a_pass = blocks_a_pass(linears_, element_size, kGradientMomentsBytes);
    for (int64_t first = 0; first < blocks_.size(); first += a_pass) {
      const int64_t last = std::min(first + a_pass, blocks_.size());
      const auto found = collect_gradients(blocks_, linears_, first, last,
                                           /*with_streams=*/trains_blocks() && ptq_.gradient_ratio > 0);
      for (int64_t block = first; block < last; ++block)
        stored_.save_gradients(block, found[static_cast<size_t>(block - first)]);
    }
    log_info(cat("gradients of the full-precision model on ", blocks_.text().tokens.size(0), " sequences in ",
                 fixed(now_s() - start, 1), " s"));
  }

  /// The streams after a block that is finished; the full-precision one needs its weights as they were.
  void replay(int64_t block) {
    if (trains_blocks()) full_ = blocks_.advance(block, full_);
    stored_.load_block(block, blocks_.decoder());
    enable(block, true);
    quantized_ = blocks_.advance(block, quantized_);
  }

  at::Tensor gradient_moments(const BlockGradients& gradients, const quant::QuantLinear& linear) const {
    const auto found = gradients.moments.find(linear.name());
    return found == gradients.moments.end() ? at::Tensor() : found->second.to(linear.master_weight().device());
  }

  BlockReport quantize(int64_t block) {
    BlockReport report;
    report.block = block;
    const Linears& linears = linears_[static_cast<size_t>(block)];
    const BlockGradients gradients = needs_gradients() ? stored_.load_gradients(block) : BlockGradients{};
    if (trains_blocks()) full_ = blocks_.advance(block, full_);  // what the block shall give

    std::map<const quant::QuantLinear*, at::Tensor> before;
    for (const auto* linear : linears) before[linear] = linear->master_weight().detach().clone();
    const auto add_report = [&](const quant::QuantLinear& linear, const at::Tensor& rounded, const at::Tensor& input) {
      report.layers.push_back(
          {linear.name(), fidelity(before.at(&linear), rounded, input, gradient_moments(gradients, linear))});
    };
    const bool by_stages = ptq::by_stages(ptq_);
    for (const Linears& stage : by_stages ? in_stages(linears) : std::vector<Linears>{linears}) {
      if (stage.empty()) continue;
      const auto inputs = input_moments(block, stage);
      std::map<const quant::QuantLinear*, at::Tensor> effective;  // rounded weights, on the inputs as they were
      if (ptq_.method == "awq") {
        effective = scale_and_round(block, linears, inputs);
      } else if (by_stages) {
        for (quant::QuantLinear* linear : stage) round_layer(*linear, inputs.at(linear), gradients);
      } else if (trains_blocks()) {
        enable(block, true);
        const BlockTask task{block,
                             linears,
                             quantized_,
                             full_,
                             ptq_.gradient_ratio > 0 ? gradients.at_input : at::Tensor(),
                             ptq_.gradient_ratio > 0 ? gradients.at_output : at::Tensor()};
        report.training = train_block(blocks_, task, ptq_.method == "lwc", ptq_, config_.train.seed);
      }
      for (quant::QuantLinear* linear : stage) {
        if (ptq_.masters == "levels") move_to_levels(*linear);
        linear->enable(true);
        const at::Tensor now = effective.contains(linear) ? effective.at(linear) : rounded(*linear);
        add_report(*linear, now, inputs.at(linear));
      }
    }
    enable(block, true);
    quantized_ = blocks_.advance(block, quantized_);
    return report;
  }

  /// Of the inputs that the layers of `stage` read while the block is as it is.
  std::map<const quant::QuantLinear*, at::Tensor> input_moments(int64_t block, const Linears& stage) const {
    const at::NoGradGuard no_grad;
    const InputMoments moments(stage);
    for (const at::Tensor& which : blocks_.batches()) {
      stop_if_asked();
      blocks_.run(block, blocks_.take(quantized_, which), which);
    }
    std::map<const quant::QuantLinear*, at::Tensor> found;
    for (const auto* linear : stage) found[linear] = moments.of(*linear);
    progress(cat("block ", block + 1, " of ", blocks_.size(), ": ", stage.front()->name()));
    return found;
  }

  static at::Tensor rounded(const quant::QuantLinear& linear) {
    return quant::dequantize(quant::quantize_weight(linear));
  }

  /// GPTQ, or clips learned by second moments.
  void round_layer(quant::QuantLinear& linear, const at::Tensor& input, const BlockGradients& gradients) const {
    const at::Tensor weight = linear.master_weight().detach();
    if (ptq_.method == "gptq")
      return hold(linear, gptq(weight, input, linear.scheme(), {ptq_.damping, ptq_.act_order}, linear.name()));
    Clips start = initial_clips(weight, linear.scheme(), input.diagonal().contiguous());
    at::Tensor error;
    {
      const at::NoGradGuard no_grad;
      error = clipped_weight(weight, start, linear.scheme(), weight.scalar_type()) - weight;
    }
    const auto objective =
        LayerObjective::balanced(input, gradient_moments(gradients, linear), error, ptq_.gradient_ratio);
    hold(linear, learn_clips(weight, linear.scheme(), objective, start, ptq_.steps, ptq_.clip_learning_rate).clips);
  }

  /// AWQ. Returns what the rounded weights are to the inputs before scaling.
  std::map<const quant::QuantLinear*, at::Tensor> scale_and_round(
      int64_t block, const Linears& linears, const std::map<const quant::QuantLinear*, at::Tensor>& moments) const {
    const at::NoGradGuard no_grad;
    std::map<const quant::QuantLinear*, at::Tensor> columns;
    std::map<std::string, at::Tensor> rows;  // what the outputs of a layer were divided by
    for (const ScaledInput& input : scaled_inputs(blocks_.decoder(), block, linears, moments)) {
      const at::Tensor factor = best_factor(input);
      apply_factor(input, factor);
      for (const auto* reader : input.readers) columns[reader] = factor;
      const std::string& reader = input.readers.front()->name();
      const std::string parent = reader.substr(0, reader.rfind('.'));
      if (reader.ends_with(".o_proj")) rows[parent + ".v_proj"] = factor;
      if (reader.ends_with(".down_proj")) rows[parent + ".up_proj"] = factor;
    }
    std::map<const quant::QuantLinear*, at::Tensor> effective;
    for (quant::QuantLinear* linear : linears) {
      const auto column = columns.find(linear);
      at::Tensor squares = moments.at(linear).diagonal();
      if (column != columns.end()) squares = squares / column->second.square();
      const at::Tensor weight = linear->master_weight().detach();
      hold(*linear, {weight, quant::initial_state(weight, linear->scheme(), squares.contiguous())});
      at::Tensor value = rounded(*linear).to(weight.scalar_type());
      if (column != columns.end()) value = value / column->second;
      if (const auto row = rows.find(linear->name()); row != rows.end()) value = value * row->second.unsqueeze(1);
      effective[linear] = value;
    }
    return effective;
  }

  const quant::Registry& registry_;
  const config::Config& config_;
  const config::Ptq& ptq_;
  const StoredBlocks& stored_;
  Blocks blocks_;
  std::vector<Linears> linears_;
  at::Tensor full_, quantized_;  ///< the streams before the present block; full precision's where blocks are trained
};

}  // namespace

std::vector<Linears> linears_of_blocks(const quant::Registry& registry, int64_t num_blocks) {
  std::vector<Linears> blocks(static_cast<size_t>(num_blocks));
  for (int64_t block = 0; block < num_blocks; ++block)
    for (const auto* module : registry.in_block(block)) blocks[static_cast<size_t>(block)].push_back(module->linear);
  return blocks;
}

std::vector<Linears> in_stages(const Linears& linears) {
  std::vector<Linears> stages(4);
  for (quant::QuantLinear* linear : linears) {
    const std::string& name = linear->name();
    const size_t stage = name.ends_with(".o_proj")                                    ? 1
                         : name.ends_with(".gate_proj") || name.ends_with(".up_proj") ? 2
                         : name.ends_with(".down_proj")                               ? 3
                                                                                      : 0;
    stages[stage].push_back(linear);
  }
  std::erase_if(stages, [](const Linears& stage) { return stage.empty(); });
  return stages;
}

bool walks_blocks(const config::Ptq& options) { return options.method != "rtn" || options.gradient_cosines; }

bool by_stages(const config::Ptq& options) {
  return options.method == "gptq" || (options.method == "lwc" && !trains_blocks(options));
}

bool trains_blocks(const config::Ptq& options) {
  return options.method == "block_ap" || (options.method == "lwc" && options.objective == "block");
}

bool needs_gradients(const config::Ptq& options) { return options.gradient_cosines || options.gradient_ratio > 0; }

void quantize_blocks(models::Decoder& decoder, const quant::Registry& registry, const Calibration& text,
                     const config::Config& config, const StoredBlocks& stored,
                     const std::function<void(const BlockReport&)>& done) {
  Quantizing(decoder, registry, text, config, stored).run(done);
}

}  // namespace satin::ptq
