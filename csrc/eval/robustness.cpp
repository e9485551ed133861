// Shapes: B windows, T tokens of a window, so T - 1 inputs and as many predictions; H hidden.
#include "eval/robustness.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "eval/in_batches.h"
#include "eval/perturb.h"

namespace satin::eval {
namespace {

/// What one model makes of a batch of inputs, on the CPU.
struct Reading {
  at::Tensor nll;     ///< [B, T - 1] of the targets
  at::Tensor argmax;  ///< [B, T - 1]
};

/// A model with a fixed batch of windows, read in several states of disrepair.
class Batch {
 public:
  Batch(models::Decoder& decoder, const at::Tensor& windows, const RobustnessOptions& options)
      : decoder_(decoder), inputs_(windows.slice(1, 0, -1)), targets_(windows.slice(1, 1)), options_(options) {}

  Reading read(const at::Tensor& inputs) { return score(decoder_.hidden(inputs)); }
  /// noise [B, T - 1, H], standard Gaussian.
  Reading read_noisy(const at::Tensor& noise, double strength) {
    const at::Tensor x = decoder_.embed(inputs_);
    const at::Tensor rms = x.square().mean({1, 2}, /*keepdim=*/true).sqrt();
    return score(decoder_.hidden({}, {.input_embeddings = x + noise.to(x.options()) * rms * strength}));
  }

 private:
  Reading score(const at::Tensor& hidden) {
    const at::Tensor targets = targets_.flatten().to(hidden.device());
    const RowScores rows = score_rows(decoder_, hidden.flatten(0, 1), targets, options_.score, options_.num_tokens);
    return {-rows.log_prob.cpu().view(targets_.sizes()), rows.argmax.cpu().view(targets_.sizes())};
  }

  models::Decoder& decoder_;
  at::Tensor inputs_, targets_;
  const RobustnessOptions& options_;
};

void add_nll(WindowMeans& means, const Reading& reading) {
  const at::Tensor sums = reading.nll.sum(1, /*keepdim=*/false, at::kDouble);
  for (int64_t b = 0; b < sums.size(0); ++b)
    means.add(sums[b].item<double>(), static_cast<double>(reading.nll.size(1)));
}

/// Where `hit` [B, T - 1] holds, from each window's position in `first` on.
void add_share(WindowMeans& means, const at::Tensor& hit, const std::vector<int64_t>& first) {
  for (int64_t b = 0; b < hit.size(0); ++b) {
    const at::Tensor after = hit[b].slice(0, first[b]);
    means.add(static_cast<double>(after.sum().item<int64_t>()), static_cast<double>(after.size(0)));
  }
}

struct Decisions {
  at::Tensor clean, perturbed;  ///< argmax [B, T - 1]
};

Decisions add_model(ModelRobustness& sums, models::Decoder& decoder, const at::Tensor& windows, int64_t first_window,
                    const Perturb& perturb, const Perturb::OneToken& wrong, const RobustnessOptions& options) {
  Batch batch(decoder, windows, options);
  const at::Tensor inputs = windows.slice(1, 0, -1).contiguous();
  const Reading clean = batch.read(inputs);
  add_nll(sums.clean, clean);
  for (size_t i = 0; i < kSubstitutionRates.size(); ++i)
    add_nll(sums.substituted[i], batch.read(perturb.substitute(inputs, first_window, kSubstitutionRates[i])));

  std::vector<at::Tensor> noise;
  for (int64_t b = 0; b < inputs.size(0); ++b)
    noise.push_back(perturb.noise(first_window + b, inputs.size(1), decoder.config().hidden_size));
  const at::Tensor noises = at::stack(noise);
  for (size_t i = 0; i < kNoiseStrengths.size(); ++i)
    add_nll(sums.noisy[i], batch.read_noisy(noises, kNoiseStrengths[i]));

  const Reading perturbed = batch.read(wrong.inputs);
  add_share(sums.flips, clean.argmax != perturbed.argmax, wrong.positions);
  return {clean.argmax, perturbed.argmax};
}

/// Every mean of a batch or of all of them, in one order.
template <class Visit>
void for_each_mean(Robustness& means, const Visit& visit) {
  for (ModelRobustness* model : {&means.student, means.teacher ? &*means.teacher : nullptr}) {
    if (!model) continue;
    visit(model->clean);
    for (WindowMeans& of_rate : model->substituted) visit(of_rate);
    for (WindowMeans& of_strength : model->noisy) visit(of_strength);
    visit(model->flips);
  }
  if (!means.teacher) return;
  for (WindowMeans* agreement : {&means.agreement, &means.agreement_perturbed, &means.agreement_unperturbed})
    visit(*agreement);
}

}  // namespace

Robustness robustness(models::Decoder& student, models::Decoder* teacher, const std::vector<int32_t>& tokens,
                      const RobustnessOptions& options, dist::Communicator& ranks) {
  const at::NoGradGuard no_grad;
  Robustness result;
  result.windows = cut_windows("robustness", tokens, options.sequence_length, options.limit);
  result.options = options;
  if (options.num_tokens == 0) result.options.num_tokens = student.config().vocab_size;
  result.options.score.argmax = true;
  if (teacher) result.teacher.emplace();
  const Perturb perturb(result.options.num_tokens, options.special_ids, options.seed);

  const Windows& windows = result.windows;
  const auto read = [&](Range range) {
    Robustness means;
    if (teacher) means.teacher.emplace();
    const int64_t first = range.first;
    const at::Tensor batch = windows.batch(first, range.number);
    const Perturb::OneToken wrong = perturb.one_token(batch.slice(1, 0, -1).contiguous(), first);
    const Decisions ours = add_model(means.student, student, batch, first, perturb, wrong, result.options);
    if (teacher) {
      const Decisions theirs = add_model(*means.teacher, *teacher, batch, first, perturb, wrong, result.options);
      add_share(means.agreement, ours.clean == theirs.clean, std::vector<int64_t>(batch.size(0), 0));
      add_share(means.agreement_unperturbed, ours.clean == theirs.clean, wrong.positions);
      add_share(means.agreement_perturbed, ours.perturbed == theirs.perturbed, wrong.positions);
    }
    Numbers numbers;
    for_each_mean(means, [&](const WindowMeans& mean) {
      numbers.insert(numbers.end(), mean.sums.begin(), mean.sums.end());
      numbers.insert(numbers.end(), mean.counts.begin(), mean.counts.end());
    });
    return numbers;
  };
  in_batches(ranks, "robustness: window", even_batches(windows.count, options.score.batch_tokens / windows.length),
             read, [&](Range range, const Numbers& numbers) {
               auto at = numbers.begin();
               for_each_mean(result, [&](WindowMeans& mean) {
                 for (auto* values : {&mean.sums, &mean.counts}) {
                   values->insert(values->end(), at, at + range.number);
                   at += range.number;
                 }
               });
             });
  return result;
}

}  // namespace satin::eval
