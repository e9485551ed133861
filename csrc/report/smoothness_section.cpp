// Smoothness of student and teacher, as `satin eval --tasks smoothness` measured it (csrc/eval/README.md defines it).
#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "report/markup.h"
#include "report/sections.h"

namespace satin::report {
namespace {

const std::vector<ComparisonRow> kRows = {{"/gradient_norm/x0/C_avg", "C_avg at x0"},
                                          {"/gradient_norm/x0/C_lower", "C_lower at x0"},
                                          {"/gradient_norm/x0/p50", "p50 of |g| at x0"},
                                          {"/gradient_norm/x0/p99", "p99 of |g| at x0"},
                                          {"/gradient_norm/x1/C_avg", "C_avg at x1"},
                                          {"/gradient_norm/x1/C_lower", "C_lower at x1"},
                                          {"/gradient_norm/x1/p50", "p50 of |g| at x1"},
                                          {"/gradient_norm/x1/p99", "p99 of |g| at x1"},
                                          {"/neighbour_nll/D_1", "D_1"},
                                          {"/neighbour_nll/D_10", "D_10"},
                                          {"/neighbour_nll/D_40", "D_40"},
                                          {"/neighbour_nll/slope", "slope of D_k"},
                                          {"/effective_candidates/1e-2", "effective candidates at 1e-2"},
                                          {"/effective_candidates/1e-3", "effective candidates at 1e-3"},
                                          {"/effective_candidates/0.05_max", "effective candidates at .05 max"},
                                          {"/entropy", "entropy (nats)"},
                                          {"/exp_entropy", "exp(entropy)"},
                                          {"/nucleus_size_0.9", "nucleus at .9 (tokens)"},
                                          {"/mass_on_teacher_top_40", "mass on the teacher's 40"},
                                          {"/decoding_tree/depth_4/mean_size", "tree nodes at depth 4"},
                                          {"/decoding_tree/depth_4/mean_log1p_size", "ln(1 + nodes) at depth 4"},
                                          {"/decoding_tree/depth_8/mean_size", "tree nodes at depth 8"},
                                          {"/decoding_tree/depth_8/mean_log1p_size", "ln(1 + nodes) at depth 8"}};

/// The arrays <object>/student and <object>/teacher over the array at `x`.
std::vector<ChartCurve> arrays(const Runs& runs, const TextResults& results, const std::string& x,
                               const std::string& object) {
  return model_curves(runs, results, [&](const EvalResult& result, const std::string& model) {
    ChartCurve curve;
    curve.x = result.numbers(x);
    curve.y = result.numbers(cat(object, "/", model), curve.x.size());
    return curve.y.empty() ? ChartCurve{} : curve;
  });
}

/// Shares of the tokens in bins of log10 of the norm, from the empty bin before the first to the end of the last.
ChartCurve histogram(const EvalResult& result, const std::string& place, const std::string& model) {
  const std::string at = cat("/gradient_norm/", place, "/histogram_log10/");
  const std::vector<double> edges = result.numbers(at + "bin_edges");
  if (edges.empty()) return {};
  const std::vector<double> counts = result.numbers(at + model, edges.size() - 1);
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  if (!(total > 0)) return {};
  const auto counted = [](double count) { return count > 0; };
  const auto first = std::ranges::find_if(counts, counted) - counts.begin();
  const auto end = std::find_if(counts.rbegin(), counts.rend(), counted).base() - counts.begin();
  ChartCurve curve;
  for (auto bin = std::max<std::ptrdiff_t>(first - 1, 0); bin <= end; ++bin) {
    curve.x.push_back(edges[static_cast<size_t>(bin)]);
    curve.y.push_back(bin < end ? counts[static_cast<size_t>(bin)] / total : 0);
  }
  return curve;
}

Chart gradient_norms(const Runs& runs, const TextResults& results, const std::string& place, const std::string& words) {
  return {.title = cat("Input gradients at ", place, ": share of the tokens"),
          .x_label = cat("norm of d loss / d ", words),
          .style = "steps",
          .x_format = "log10",
          .curves = model_curves(runs, results, [&](const EvalResult& result, const std::string& model) {
            return histogram(result, place, model);
          })};
}

ChartCurve effective_candidates(const EvalResult& result, const std::string& model) {
  static const std::vector<std::string> kThresholds = {"1e-2", "1e-3", "0.05_max"};
  ChartCurve curve;
  for (size_t i = 0; i < kThresholds.size(); ++i)
    if (const auto count = result.number(cat("/effective_candidates/", kThresholds[i], "/", model))) {
      curve.x.push_back(static_cast<double>(i));
      curve.y.push_back(*count);
    }
  return curve;
}

std::vector<Chart> charts_of(const Runs& runs, const TextResults& results) {
  return {
      {.title = "D_k: mean -ln p_teacher of the k-th candidate",
       .x_label = "k",
       .curves = arrays(runs, results, "/neighbour_nll/k", "/neighbour_nll")},
      gradient_norms(runs, results, "x0", "embedding"),
      gradient_norms(runs, results, "x1", "input of layer 1"),
      {.title = "Effective candidates of 40",
       .x_label = "least p_teacher",
       .style = "bars",
       .categories = {"1%", "0.1%", "5% of the max"},
       .curves = model_curves(runs, results, effective_candidates)},
      {.title = "Decoding tree: mean ln(1 + nodes)",
       .x_label = "depth (tokens)",
       .style = "points",
       .curves = arrays(runs, results, "/decoding_tree/by_depth/depth", "/decoding_tree/by_depth/mean_log1p_size")}};
}

}  // namespace

std::string smoothness_section(const Runs& runs, Charts& charts) {
  std::string html;
  for (const TextResults& results : results_of(runs, "smoothness")) {
    html += heading("Smoothness on " + results.text);
    html += paragraph(
        "How steeply the loss rises with the inputs (g: its gradient with respect to a token's embedding, x0, or to "
        "the "
        "input of layer 1, x1; C_avg is the mean norm, C_lower the largest; lower is smoother), and what the teacher "
        "thinks of a model's candidates for the next token: D_k is the mean of -ln p_teacher of the k-th, an effective "
        "candidate has at least the stated p_teacher.");
    html += charts.place(charts_of(runs, results));
    html += comparison_html(runs, results, kRows) + protocol_html(runs, results);
  }
  return html;
}

}  // namespace satin::report
