#include "train/measured_layers.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "core/interrupt.h"
#include "eval/tasks.h"

namespace satin::train {
namespace {

/// Of the layers' inputs.
class Energies {
 public:
  explicit Energies(const Student& student)
      : student_(student), sums_(static_cast<size_t>(student.decoder->config().num_layers), 0) {
    student.registry->enable(false);
  }
  void see(const std::vector<int32_t>& ids) {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> taps;
    student_.decoder->hidden(at::tensor(at::ArrayRef<int32_t>(ids), at::kInt).to(at::kLong).unsqueeze(0),
                             {.taps = &taps});
    for (size_t i = 0; i < taps.size(); ++i) sums_[i] += taps[i].square().sum(at::kDouble).item<double>();
    num_tokens_ += static_cast<double>(ids.size());
  }
  std::vector<double> means() const {
    std::vector<double> found = sums_;
    for (double& value : found) value /= std::max(1.0, num_tokens_);
    return found;
  }

 private:
  const Student& student_;
  std::vector<double> sums_;
  double num_tokens_ = 0;
};

}  // namespace

MeasuredLayers::MeasuredLayers(const config::Config& config, Student student, std::vector<int32_t> general,
                               std::vector<Question> questions)
    : config_(config), student_(std::move(student)), general_(std::move(general)), questions_(std::move(questions)) {
  for (int64_t layer = 0; layer < student_.decoder->config().num_layers; ++layer)
    layers_.push_back(student_.registry->in_block(layer));
}

int64_t MeasuredLayers::num_parameters(size_t layer) const {
  int64_t count = 0;
  for (const auto* module : layers_[layer]) count += module->linear->master_weight().numel();
  return count;
}

double MeasuredLayers::effective_bits(const std::vector<int>& bits, const ColumnBits& columns) const {
  double total = 0, count = 0;
  for (size_t layer = 0; layer < layers_.size(); ++layer)
    for (const auto* module : layers_[layer]) {
      quant::Scheme scheme = module->scheme;
      scheme.bits = bits[layer];
      if (const auto found = columns.find(module->name); found != columns.end())
        scheme.column_bits = quant::bits_of_groups(found->second, scheme.group_size);
      const at::Tensor weight = module->linear->master_weight();
      total += scheme.effective_bits(weight.size(0), weight.size(1)) * static_cast<double>(weight.numel());
      count += static_cast<double>(weight.numel());
    }
  return total / count;
}

void MeasuredLayers::round(const std::vector<int>& bits, const ColumnBits& columns) const {
  student_.registry->enable(false);
  for (size_t layer = 0; layer < layers_.size(); ++layer)
    for (const auto* module : layers_[layer]) {
      if (bits[layer] == 0) continue;
      module->linear->set_bits(bits[layer], /*keep_range=*/false);
      if (const auto found = columns.find(module->name); found != columns.end())
        module->linear->set_column_bits(quant::bits_of_groups(found->second, module->scheme.group_size));
      module->linear->initialise();
      module->enable(true);
    }
}

LayerLosses MeasuredLayers::losses(const std::vector<int>& bits, const ColumnBits& columns) const {
  if (const int signal = interrupt_signal())
    throw InterruptedError(cat("stopped by signal ", signal, "; --resume auto goes on from what was measured"));
  round(bits, columns);
  return {eval::perplexity(*student_.decoder, general_, config_.train.sequence_length).perplexity(), answer_loss()};
}

std::vector<double> MeasuredLayers::general_energies() const {
  Energies energies(student_);
  const int64_t length = config_.train.sequence_length;
  for (int64_t i = 0; (i + 1) * length <= static_cast<int64_t>(general_.size()); ++i)
    energies.see({general_.begin() + i * length, general_.begin() + (i + 1) * length});
  return energies.means();
}

std::vector<double> MeasuredLayers::question_energies(bool odd) const {
  Energies energies(student_);
  for (size_t i = odd ? 1 : 0; i < questions_.size(); i += 2) energies.see(questions_[i].ids);
  return energies.means();
}

at::Tensor MeasuredLayers::general_tokens() const {
  return at::tensor(at::ArrayRef<int32_t>(general_), at::kInt).to(at::kLong).view({-1, config_.train.sequence_length});
}

double MeasuredLayers::answer_loss() const {
  if (questions_.empty()) return std::nan("");
  std::vector<std::vector<int32_t>> sequences;
  for (const Question& question : questions_) sequences.push_back(question.ids);
  const auto scores = eval::score(*student_.decoder, sequences);
  double sum = 0;
  int64_t count = 0;
  for (size_t i = 0; i < questions_.size(); ++i)
    for (size_t t = questions_[i].first_answer; t < questions_[i].ids.size(); ++t, ++count)
      sum -= scores[i].log_prob[t - 1];
  return sum / static_cast<double>(count);
}

}  // namespace satin::train
