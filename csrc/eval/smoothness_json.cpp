// The smoothness task's results as JSON and as a table.
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "eval/comparison.h"
#include "eval/norm_summary.h"
#include "eval/protocol.h"
#include "eval/smoothness.h"

namespace satin::eval {
namespace {

using nlohmann::json;
using Norms = std::vector<float> ModelSmoothness::*;

/// compare() of one number of each model.
template <class Number>
json compare_models(const Smoothness& result, const Number& number) {
  return compare(number(result.student),
                 result.teacher ? std::optional<double>(number(*result.teacher)) : std::nullopt);
}

json histogram(const Smoothness& result, Norms place) {
  std::vector<double> edges;
  for (int bin = 0; bin <= LogBins::kCount; ++bin) edges.push_back(LogBins::edge(bin));
  json counts = {{"bin_edges", edges}, {"student", log10_histogram(result.student.*place)}};
  if (result.teacher) counts["teacher"] = log10_histogram((*result.teacher).*place);
  return counts;
}

json gradient_norm(const Smoothness& result, Norms place) {
  const bool with_teacher = result.teacher && !((*result.teacher).*place).empty();
  const NormSummary student = summarise(result.student.*place);
  const NormSummary teacher = with_teacher ? summarise((*result.teacher).*place) : NormSummary{};
  const auto both = [&](double NormSummary::*number) {
    return compare(student.*number, with_teacher ? std::optional(teacher.*number) : std::nullopt);
  };
  return {{"C_avg", both(&NormSummary::mean)},
          {"C_lower", both(&NormSummary::max)},
          {"p50", both(&NormSummary::p50)},
          {"p99", both(&NormSummary::p99)},
          {"histogram_log10", histogram(result, place)}};
}

double slope(const ModelSmoothness& model) {
  const std::vector<double>& nll = model.neighbour_nll;  // one candidate has no slope: 0 / 0, null
  return (nll.back() - nll.front()) / std::log(static_cast<double>(nll.size()));
}

json neighbour_nll(const Smoothness& result) {
  json curve = {
      {"k", json::array()}, {"student", json::array()}, {"teacher", json::array()}, {"excess", json::array()}};
  for (size_t k = 0; k < result.student.neighbour_nll.size(); ++k) {
    const json numbers = compare_models(result, [&](const auto& model) { return model.neighbour_nll[k]; });
    curve["k"].push_back(k + 1);
    for (const char* key : {"student", "teacher", "excess"}) curve[key].push_back(numbers[key]);
    if (k == 0 || k == 9 || k == 39) curve[cat("D_", k + 1)] = numbers;
  }
  curve["slope"] = compare_models(result, slope);
  return curve;
}

json decoding_tree(const Smoothness& result) {
  json tree = {{"roots", result.roots.starts.size()}, {"root_tokens", result.roots.length}};
  json& curve = tree["by_depth"];
  for (int depth = 1; depth <= kTreeDepth; ++depth) {
    const json sizes = {
        {"mean_size", compare_models(result, [&](const auto& m) { return tree_size(m.paths, depth).mean; })},
        {"mean_log1p_size",
         compare_models(result, [&](const auto& m) { return tree_size(m.paths, depth).mean_log1p; })}};
    curve["depth"].push_back(depth);
    for (const auto& [name, numbers] : sizes.items())
      for (const char* model : {"student", "teacher"}) curve[name][model].push_back(numbers[model]);
    if (depth == 4 || depth == 8) tree[cat("depth_", depth)] = sizes;
  }
  return tree;
}

json protocol(const Smoothness& result, const models::Decoder& decoder, const std::string& documents) {
  json protocol = arithmetic(decoder);
  protocol["documents"] = documents;
  protocol["windows"] = result.windows.count;
  protocol["sequence_length"] = result.windows.sequence_length;
  protocol["tokens_per_window"] = result.windows.length;
  protocol["tail"] = result.windows.is_short() ? "the text is one short window" : "dropped";
  protocol["gradient"] =
      "of the mean cross-entropy of each window's predictions, in the compute dtype; norms scale with 1 / "
      "tokens_per_window; every token counts, the last one of a window has gradient 0";
  protocol["candidates"] =
      cat("first ", kNumCandidates, " by logit, ties to the lower id, at every position; ids below ",
          result.options.num_tokens, "; probabilities over the whole vocabulary");
  protocol["seed"] = result.options.seed;
  if (!result.roots.starts.empty())
    protocol["decoding_tree"] =
        "Knuth's estimator of the nodes at a depth: one path a root, branches are candidates with teacher probability "
        ">= 0.01, the next node uniform among them; roots are spans of root_tokens tokens, drawn uniformly";
  return protocol;
}

}  // namespace

json to_json(const Smoothness& result, const models::Decoder& decoder, const std::string& documents) {
  json out = {{"tokens", result.windows.tokens.size()}, {"protocol", protocol(result, decoder, documents)}};
  out["gradient_norm"]["x0"] = gradient_norm(result, &ModelSmoothness::x0);
  if (!result.student.x1.empty()) out["gradient_norm"]["x1"] = gradient_norm(result, &ModelSmoothness::x1);
  out["entropy"] = compare_models(result, [](const auto& model) { return model.entropy; });
  out["exp_entropy"] = compare_models(result, [](const auto& model) { return std::exp(model.entropy); });
  out["nucleus_size_0.9"] = compare_models(result, [](const auto& model) { return model.nucleus_size; });
  if (!result.teacher) return out;
  out["neighbour_nll"] = neighbour_nll(result);
  constexpr std::array kNames = {"1e-2", "1e-3", "0.05_max"};
  for (size_t i = 0; i < kNames.size(); ++i)
    out["effective_candidates"][kNames[i]] =
        compare_models(result, [&](const auto& model) { return model.effective[i]; });
  out["mass_on_teacher_top_40"] = compare_models(result, [](const auto& model) { return model.mass_on_teacher_top; });
  if (!result.roots.starts.empty()) out["decoding_tree"] = decoding_tree(result);
  return out;
}

std::string smoothness_table(const json& result) {
  std::vector<TableRow> rows;
  for (const auto& [place, input] : {std::pair{"x0", "embeddings"}, std::pair{"x1", "input of layer 1"}}) {
    const std::string at = cat("/gradient_norm/", place, "/");
    rows.push_back(
        {at + "C_avg", cat("C_avg ", place), cat("mean |d loss / d ", input, "| a token: lower is smoother")});
    rows.push_back({at + "C_lower", cat("C_lower ", place), "the largest of these norms"});
    rows.push_back({at + "p50", cat("p50 |g| ", place), "their median"});
    rows.push_back({at + "p99", cat("p99 |g| ", place), "their 99th percentile"});
  }
  const std::vector<TableRow> more = {
      {"/neighbour_nll/D_1", "D_1", "mean -ln p_teacher of the first candidate: low when the teacher agrees"},
      {"/neighbour_nll/D_10", "D_10", "... of the 10th candidate"},
      {"/neighbour_nll/D_40", "D_40", "... of the 40th candidate"},
      {"/neighbour_nll/slope", "slope of D_k", "(D_40 - D_1) / ln 40: how fast candidates get worse"},
      {"/effective_candidates/1e-2", "effective at 1e-2",
       "of 40 candidates, those with p_teacher >= 1e-2: more is richer"},
      {"/effective_candidates/1e-3", "effective at 1e-3", "... with p_teacher >= 1e-3"},
      {"/effective_candidates/0.05_max", "effective at .05 max", "... with p_teacher >= .05 of its largest"},
      {"/exp_entropy", "exp(entropy)", "equally likely next tokens with the model's mean entropy"},
      {"/nucleus_size_0.9", "nucleus at .9", "tokens that hold .9 of the probability"},
      {"/mass_on_teacher_top_40", "mass on teacher's 40", "probability given to the teacher's first 40"},
      {"/decoding_tree/depth_4/mean_size", "tree nodes at depth 4",
       "four-token continuations of which each token is effective at 1e-2"},
      {"/decoding_tree/depth_4/mean_log1p_size", "ln(1 + nodes) at 4",
       "the mean logarithm, which few large trees do not rule"},
      {"/decoding_tree/depth_8/mean_size", "tree nodes at depth 8", "... eight tokens long"},
      {"/decoding_tree/depth_8/mean_log1p_size", "ln(1 + nodes) at 8", "... its mean logarithm"}};
  rows.insert(rows.end(), more.begin(), more.end());
  return comparison_table(result, rows);
}

json dump_roots(const Smoothness& result) {
  json roots = json::array();
  for (size_t r = 0; r < result.roots.starts.size(); ++r) {
    const auto start = result.windows.tokens.begin() + result.roots.starts[r];
    json draws = json::array();
    for (int depth = 0; depth < kTreeDepth; ++depth)
      draws.push_back(tree_draw(result.options.seed, static_cast<int64_t>(r), depth));
    roots.push_back({{"start", result.roots.starts[r]},
                     {"context", std::vector<int32_t>(start, start + result.roots.length)},
                     {"draws", draws},
                     {"student_branches", result.student.paths[r]},
                     {"teacher_branches", result.teacher->paths[r]}});
  }
  return {{"theta", TreeOptions().theta},
          {"top_k", kNumCandidates},
          {"num_tokens", result.options.num_tokens},
          {"child", "at depth i the (draws[i] * branches[i] >> 64)-th effective candidate, the model's best first"},
          {"roots", roots}};
}

}  // namespace satin::eval
