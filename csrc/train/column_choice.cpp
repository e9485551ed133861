#include "train/column_choice.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/log.h"
#include "ptq/blocks.h"
#include "ptq/gptq.h"
#include "ptq/moments.h"
#include "quant/codes.h"

namespace satin::train {
namespace {

constexpr int kLeastBits = 2, kMostBits = 8;

/// A linear's rounding errors [N, K] with all columns at each of three bits, from which any choice is put together.
class RoundingErrors {
 public:
  RoundingErrors(const quant::QuantizedModule& module, int bits, const at::Tensor& moments)
      : least_(bits - 1), moments_(moments) {
    const at::Tensor weight = module.linear->master_weight().detach();
    for (int candidate = bits - 1; candidate <= bits + 1; ++candidate) {
      quant::Scheme scheme = module.scheme;
      scheme.bits = candidate;
      const at::Tensor rounded = quant::dequantize(quant::round_to_nearest(weight, scheme, module.name));
      errors_.push_back((rounded.to(weight.scalar_type()) - weight).to(moments.scalar_type()));
    }
    whole_ = squared(weight.to(moments.scalar_type()));
  }

  /// sum over rows of (w' - w)^2 / [H^-1]_jj, of each group.
  std::vector<double> salience(const at::Tensor& inverse_diagonal) const {
    const at::Tensor sums = (errors_[1].square().sum(0, false, at::kDouble) / inverse_diagonal)
                                .view({-1, config::kBitColumns})
                                .sum(1)
                                .cpu()
                                .contiguous();
    return {sums.const_data_ptr<double>(), sums.const_data_ptr<double>() + sums.numel()};
  }
  /// tr(D H D^T) / tr(W H W^T).
  double of(const std::vector<int64_t>& bits) const {
    at::Tensor error = errors_[1].clone();
    for (size_t group = 0; group < bits.size(); ++group) {
      const auto columns = [&](const at::Tensor& values) {
        return values.narrow(1, static_cast<int64_t>(group) * config::kBitColumns, config::kBitColumns);
      };
      columns(error).copy_(columns(errors_[static_cast<size_t>(bits[group] - least_)]));
    }
    return squared(error) / whole_;
  }

 private:
  double squared(const at::Tensor& values) const {
    return at::mm(values, moments_).mul_(values).sum(at::kDouble).item<double>();
  }

  int64_t least_;
  at::Tensor moments_;
  std::vector<at::Tensor> errors_;
  double whole_ = 0;
};

/// Linears that keep one number of bits, counted by the reason.
struct Kept {
  size_t narrow = 0, at_the_end = 0;

  bool keeps(const quant::QuantizedModule& module, int bits) {
    const int64_t num_columns = module.linear->master_weight().size(1);
    const bool no_groups = num_columns % config::kBitColumns != 0 || num_columns < 2 * config::kBitColumns;
    const bool no_bits = bits - 1 < kLeastBits || bits + 1 > kMostBits;
    narrow += no_groups;
    at_the_end += !no_groups && no_bits;
    return no_groups || no_bits;
  }
};

void log_choices(const ColumnChoices& choices, const Kept& kept) {
  size_t changed = 0;
  double before = 0, after = 0;
  for (const auto& [module, choice] : choices) {
    changed += choice.pairs > 0;
    before += choice.before;
    after += choice.after;
  }
  std::string text = cat("columns: ", changed, " of ", choices.size() + kept.narrow + kept.at_the_end,
                         " linear layers get a bit more for some and a bit less for others");
  if (!choices.empty())
    text += cat("; mean error of outputs ", before / static_cast<double>(choices.size()), " -> ",
                after / static_cast<double>(choices.size()));
  if (kept.at_the_end)
    text += cat("; ", kept.at_the_end, " have no bit to give or take (", kLeastBits, " or ", kMostBits, " bits)");
  if (kept.narrow) text += cat("; ", kept.narrow, " have inputs other than 2, 3, ... times ", config::kBitColumns);
  log_info(text);
}

}  // namespace

ColumnChoices choose_columns(const config::Config& config, const MeasuredLayers& model, const std::vector<int>& bits) {
  const at::NoGradGuard no_grad;
  const ptq::Blocks blocks(*model.student().decoder, {model.general_tokens(), {}, {}}, config.train.micro_batch_size,
                           config.ptq.keep_on_host);
  model.student().registry->enable(false);
  ColumnChoices choices;
  Kept kept;
  at::Tensor stream = blocks.embed();
  for (size_t layer = 0; layer < model.size(); ++layer) {
    std::vector<const quant::QuantizedModule*> modules;
    std::vector<quant::QuantLinear*> linears;
    for (const auto* module : model.modules(layer)) {
      if (kept.keeps(*module, bits[layer])) continue;
      modules.push_back(module);
      linears.push_back(module->linear);
    }
    const ptq::InputMoments moments(linears);
    stream = blocks.advance(static_cast<int64_t>(layer), stream);
    for (const auto* module : modules) {
      const at::Tensor of = moments.of(*module->linear);
      const RoundingErrors errors(*module, bits[layer], of);
      choices[module->name] =
          allocate::choose_columns(errors.salience(ptq::inverse_diagonal(of, config.ptq.damping, module->name)),
                                   bits[layer], [&](const auto& candidate) { return errors.of(candidate); });
    }
    progress(cat("columns: layer ", layer + 1, " of ", model.size()));
  }
  end_progress();
  log_choices(choices, kept);
  return choices;
}

ColumnBits changed_columns(const ColumnChoices& choices) {
  ColumnBits found;
  for (const auto& [module, choice] : choices)
    if (choice.pairs > 0) found[module] = choice.bits;
  return found;
}

nlohmann::ordered_json choices_json(const ColumnChoices& choices) {
  nlohmann::ordered_json found = nlohmann::ordered_json::object();
  for (const auto& [module, choice] : choices)
    found[module] = {{"pairs", choice.pairs},
                     {"column_bits", choice.bits},
                     {"error_before", choice.before},
                     {"error_after", choice.after}};
  return found;
}

}  // namespace satin::train
