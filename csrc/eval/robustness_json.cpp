// The robustness task's results as JSON and as a table.
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "eval/comparison.h"
#include "eval/protocol.h"
#include "eval/robustness.h"

namespace satin::eval {
namespace {

using nlohmann::json;
using Means = const WindowMeans&;

std::vector<double> bounds(const Interval& interval) { return {interval.low, interval.high}; }
std::vector<double> exp_bounds(const Interval& interval) { return {std::exp(interval.low), std::exp(interval.high)}; }

/// Perplexities of both models on the same predictions; `means` picks them out of a ModelRobustness.
template <class Pick>
json perplexities(const Robustness& result, const Pick& means) {
  Means student = means(result.student);
  if (!result.teacher) {
    json numbers = compare(std::exp(student.mean()), {});
    numbers["student_ci95"] = exp_bounds(student.interval());
    return numbers;
  }
  Means teacher = means(*result.teacher);
  json numbers = compare(std::exp(student.mean()), std::exp(teacher.mean()));
  numbers["student_ci95"] = exp_bounds(student.interval());
  numbers["teacher_ci95"] = exp_bounds(teacher.interval());
  numbers["ratio_ci95"] = exp_bounds(student.minus(teacher).interval());
  return numbers;
}

/// ... and how often worse than on clean text.
template <class Pick>
json perturbed(const Robustness& result, const Pick& means) {
  json numbers = perplexities(result, means);
  const auto increase = [&](const ModelRobustness& model) {
    return std::exp(means(model).mean() - model.clean.mean());
  };
  numbers["over_clean"] = compare(increase(result.student),
                                  result.teacher ? std::optional<double>(increase(*result.teacher)) : std::nullopt);
  return numbers;
}

json share(Means student) {
  json numbers = compare(student.mean(), {});
  numbers["student_ci95"] = bounds(student.interval());
  return numbers;
}

json protocol(const Robustness& result, const models::Decoder& decoder, const std::string& documents) {
  json protocol = arithmetic(decoder);
  protocol["documents"] = documents;
  protocol["windows"] = result.windows.count;
  protocol["sequence_length"] = result.windows.sequence_length;
  protocol["predictions_per_window"] = result.windows.length - 1;
  protocol["tail"] = result.windows.is_short() ? "the text is one short window" : "dropped";
  protocol["token_substitution"] =
      "each input token that is not special becomes, at the rate, another ordinary token, uniformly; targets stay";
  protocol["embedding_noise"] = "Gaussian, its deviation the strength times the RMS of the window's embeddings";
  protocol["one_token"] = "one input token a window replaced, counted over the predictions after it";
  protocol["ci95"] =
      "mean -+ 1.96 standard errors over windows (normal, linearised ratio; ratios paired by window); "
      "too narrow below some 30 windows";
  protocol["seed"] = result.options.seed;
  return protocol;
}

}  // namespace

json to_json(const Robustness& result, const models::Decoder& decoder, const std::string& documents) {
  json out = {{"tokens", result.windows.count * (result.windows.length - 1)},
              {"protocol", protocol(result, decoder, documents)}};
  out["perplexity"] = perplexities(result, [](const auto& model) -> Means { return model.clean; });
  for (size_t i = 0; i < kSubstitutionRates.size(); ++i) {
    json numbers = perturbed(result, [&](const auto& model) -> Means { return model.substituted[i]; });
    numbers["rate"] = kSubstitutionRates[i];
    out["token_substitution"].push_back(numbers);
  }
  for (size_t i = 0; i < kNoiseStrengths.size(); ++i) {
    json numbers = perturbed(result, [&](const auto& model) -> Means { return model.noisy[i]; });
    numbers["strength"] = kNoiseStrengths[i];
    out["embedding_noise"].push_back(numbers);
  }
  json& flips = out["flips_after_one_token"] = share(result.student.flips);
  if (!result.teacher) return out;
  flips.update(compare(result.student.flips.mean(), result.teacher->flips.mean()));
  flips["teacher_ci95"] = bounds(result.teacher->flips.interval());
  out["agreement"] = {{"clean", share(result.agreement)},
                      {"after_one_token", share(result.agreement_perturbed)},
                      {"after_no_wrong_token", share(result.agreement_unperturbed)}};
  return out;
}

std::string robustness_table(const json& result) {
  std::vector<TableRow> rows = {{"/perplexity", "perplexity", "of the text as it is"}};
  for (size_t i = 0; i < kSubstitutionRates.size(); ++i)
    rows.push_back({cat("/token_substitution/", i), cat("... ", 100 * kSubstitutionRates[i], "% wrong tokens"),
                    "perplexity when so many input tokens are replaced at random"});
  for (size_t i = 0; i < kNoiseStrengths.size(); ++i)
    rows.push_back({cat("/embedding_noise/", i), cat("... noise of ", kNoiseStrengths[i], " RMS"),
                    "perplexity under Gaussian noise on the embeddings"});
  rows.push_back({"/flips_after_one_token", "flips", "argmax changed by one wrong token, of predictions after it"});
  rows.push_back({"/agreement/clean", "agreement", "argmax equal to the teacher's"});
  rows.push_back({"/agreement/after_one_token", "... after a wrong token",
                  "the same of predictions after it, both having read it"});
  rows.push_back(
      {"/agreement/after_no_wrong_token", "... had it been right", "of the same predictions: what to compare with"});
  return comparison_table(result, rows);
}

}  // namespace satin::eval
