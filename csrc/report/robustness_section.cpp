// Robustness of student and teacher, as `satin eval --tasks robustness` measured it (csrc/eval/README.md defines it).
#include <limits>

#include "core/error.h"
#include "report/markup.h"
#include "report/sections.h"

namespace satin::report {
namespace {

/// Perplexity over the strength of a perturbation, the clean text being 0.
struct Perturbation {
  std::string pointer;       ///< of the array with an object a strength
  std::string strength_key;  ///< ... and of the strength in it
  std::string row_label;     ///< followed by the strength
};
const Perturbation kSubstitution{"/token_substitution", "rate", "perplexity, share of wrong tokens "};
const Perturbation kNoise{"/embedding_noise", "strength", "perplexity, noise over RMS "};

/// The objects of a perturbation, the clean text first, with their strengths.
std::vector<std::pair<std::string, double>> strengths(const EvalResult& result, const Perturbation& perturbation) {
  std::vector<std::pair<std::string, double>> found = {{"/perplexity", 0}};
  for (size_t i = 0; i < result.length(perturbation.pointer); ++i) {
    const std::string at = cat(perturbation.pointer, "/", i);
    if (const auto strength = result.number(cat(at, "/", perturbation.strength_key))) found.emplace_back(at, *strength);
  }
  return found;
}

ChartCurve curve(const EvalResult& result, const Perturbation& perturbation, const std::string& model) {
  ChartCurve curve;
  if (result.length(perturbation.pointer) == 0) return curve;
  for (const auto& [at, strength] : strengths(result, perturbation)) {
    const auto perplexity = result.number(cat(at, "/", model));
    if (!perplexity) continue;
    curve.x.push_back(strength);
    curve.y.push_back(*perplexity);
    // One window has no interval.
    const double none = std::numeric_limits<double>::quiet_NaN();
    curve.low.push_back(result.number(cat(at, "/", model, "_ci95/0")).value_or(none));
    curve.high.push_back(result.number(cat(at, "/", model, "_ci95/1")).value_or(none));
  }
  return curve;
}

std::vector<ComparisonRow> rows_of(const TextResults& results) {
  std::vector<ComparisonRow> rows = {{"/perplexity", "perplexity, clean text"}};
  const EvalResult& first = *results.runs[0].second;  // every run has the same strengths, or the protocols differ
  for (const Perturbation& perturbation : {kSubstitution, kNoise})
    for (const auto& [at, strength] : strengths(first, perturbation))
      if (strength > 0) rows.push_back({at, perturbation.row_label + number_text(strength)});
  rows.push_back({"/flips_after_one_token", "flips after one wrong token (share)"});
  rows.push_back({"/agreement/clean", "agreement with the teacher (share)"});
  rows.push_back({"/agreement/after_one_token", "agreement after one wrong token"});
  rows.push_back({"/agreement/after_no_wrong_token", "... of the same, had it been right"});
  return rows;
}

}  // namespace

std::string robustness_section(const Runs& runs, Charts& charts) {
  std::string html;
  for (const TextResults& results : results_of(runs, "robustness")) {
    html += heading("Robustness on " + results.text);
    html += paragraph(
        "Perplexity of the true next tokens when the model reads a text with wrong tokens or noisy embeddings; bands "
        "and brackets are 95 % intervals over windows. Flips: predictions changed by one wrong token before them.");
    const auto curves = [&](const Perturbation& perturbation) {
      return model_curves(runs, results, [&](const EvalResult& result, const std::string& model) {
        return curve(result, perturbation, model);
      });
    };
    html += charts.place({{.title = "Perplexity with wrong input tokens",
                           .x_label = "share of wrong tokens",
                           .style = "points",
                           .x_format = "percent",
                           .curves = curves(kSubstitution)},
                          {.title = "Perplexity with noisy embeddings",
                           .x_label = "deviation of the noise / RMS of the embeddings",
                           .style = "points",
                           .curves = curves(kNoise)}});
    html += comparison_html(runs, results, rows_of(results)) + protocol_html(runs, results);
  }
  return html;
}

}  // namespace satin::report
