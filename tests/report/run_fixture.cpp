#include "report/run_fixture.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "support/test_support.h"

namespace satin::report {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

/// What csrc/eval/comparison.h writes.
json compared(double student, double teacher) {
  return {{"student", student}, {"teacher", teacher}, {"excess", student - teacher}, {"ratio", student / teacher}};
}

json with_interval(double student, double teacher) {
  json numbers = compared(student, teacher);
  numbers["student_ci95"] = {student * .95, student * 1.05};
  numbers["teacher_ci95"] = {teacher * .95, teacher * 1.05};
  numbers["ratio_ci95"] = {student / teacher - .01, student / teacher + .01};
  return numbers;
}

/// Counts that fall off around `centre` (log10), as csrc/eval/norm_summary.h bins them.
std::vector<int> bell(double centre) {
  std::vector<int> counts;
  for (int bin = 0; bin < 120; ++bin) {
    const double distance = -10 + bin / 10. - centre;
    counts.push_back(static_cast<int>(1000 * std::exp(-8 * distance * distance)));
  }
  return counts;
}

json gradient_norms(double excess, double centre) {
  const double scale = std::pow(10, centre);
  json norms;
  for (const auto& [name, factor] :
       {std::pair{"C_avg", 1.}, std::pair{"C_lower", 9.}, std::pair{"p50", .8}, std::pair{"p99", 4.}})
    norms[name] = compared((1 + excess) * factor * scale, factor * scale);
  std::vector<double> edges;
  for (int bin = 0; bin <= 120; ++bin) edges.push_back(-10 + bin / 10.);
  norms["histogram_log10"] = {
      {"bin_edges", edges}, {"student", bell(centre + std::log10(1 + excess))}, {"teacher", bell(centre)}};
  return norms;
}

json smoothness(double excess) {
  json curve = {{"k", json::array()}, {"student", json::array()}, {"teacher", json::array()}};
  for (int k = 1; k <= 40; ++k) {
    curve["k"].push_back(k);
    curve["teacher"].push_back(std::log(k + 2));
    curve["student"].push_back((1 + excess) * std::log(k + 2));
    if (k == 1 || k == 10 || k == 40)
      curve["D_" + std::to_string(k)] = compared((1 + excess) * std::log(k + 2), std::log(k + 2));
  }
  curve["slope"] = compared(.8 * (1 + excess), .8);
  json tree = {{"roots", 256}};
  for (int depth = 1; depth <= 8; ++depth) {
    tree["by_depth"]["depth"].push_back(depth);
    tree["by_depth"]["mean_log1p_size"]["teacher"].push_back(1.1 * depth);
    tree["by_depth"]["mean_log1p_size"]["student"].push_back(1.1 * depth * (1 - excess / 2));
  }
  for (const int depth : {4, 8})
    tree["depth_" + std::to_string(depth)] = {{"mean_size", compared(20. * depth, 30. * depth)},
                                              {"mean_log1p_size", compared(.9 * depth, 1.1 * depth)}};
  return {{"gradient_norm", {{"x0", gradient_norms(excess, -2.4)}, {"x1", gradient_norms(excess, -2.9)}}},
          {"neighbour_nll", curve},
          {"effective_candidates",
           {{"1e-2", compared(6.5 - excess, 7)},
            {"1e-3", compared(19 - 4 * excess, 21)},
            {"0.05_max", compared(4.9 - excess, 5)}}},
          {"entropy", compared(3.1, 3.0)},
          {"exp_entropy", compared(22.2, 20.1)},
          {"nucleus_size_0.9", compared(130, 99)},
          {"mass_on_teacher_top_40", compared(.78, .81)},
          {"decoding_tree", tree},
          {"protocol", {{"device", "cpu"}, {"sequence_length", 256}, {"windows", 64}}}};
}

json robustness(double excess) {
  json result = {{"perplexity", with_interval(20 * (1 + excess), 20)}};
  const auto add = [&](const char* list, const char* key, double strength, double teacher) {
    json numbers = with_interval(teacher * (1 + excess), teacher);
    numbers[key] = strength;
    result[list].push_back(numbers);
  };
  for (const auto& [rate, teacher] : {std::pair{.01, 22.}, std::pair{.05, 30.}, std::pair{.15, 50.}})
    add("token_substitution", "rate", rate, teacher);
  for (const auto& [strength, teacher] : {std::pair{.05, 21.}, std::pair{.1, 24.}, std::pair{.2, 33.}})
    add("embedding_noise", "strength", strength, teacher);
  result["flips_after_one_token"] = with_interval(.04, .03);
  for (const char* name : {"clean", "after_one_token", "after_no_wrong_token"})
    result["agreement"][name] = {{"student", .71}, {"student_ci95", {.7, .72}}};
  result["protocol"] = {{"device", "cpu"}, {"sequence_length", 256}, {"windows", 64}};
  return result;
}

}  // namespace

void write_training(const fs::path& dir, double rate, double offset) {
  test::write_file(dir / "config.yaml",
                   "model:\n  path: ../teacher\noptimizer:\n  learning_rate: " + std::to_string(rate) +
                       "\nquantization:\n  overrides:\n    - match: \"*<b>*\"\n      bits: 3\n");
  std::string lines;
  for (int step = 10; step <= 200; step += 10) {
    const double loss = offset + 50.0 / step;
    lines += json{{"step", step},
                  {"tokens", step * 100},
                  {"loss", loss},
                  {"kd", loss / 2},
                  {"neighbourhood_share", 0.15},
                  {"lr", rate * (220 - step) / 200},
                  {"grad_norm", 0.5 + offset / step},
                  {"tokens_per_second", 1e5 + 100 * step},
                  {"mfu", nullptr}}
                 .dump() +
             "\n";
    if (step % 100) continue;
    const json text = {{"perplexity", 30 + offset}, {"protocol", {{"windows", 16}}}, {"tokens", 4096}};
    lines += json{{"step", step}, {"eval", {{"books-valid", text}}}}.dump() + "\n";
    lines += json{{"step", step},
                  {"quantizers", {{"clipped", .01 * offset}, {"changed", 1. / step}, {"scale_drift", .0002 * step}}}}
                 .dump() +
             "\n";
  }
  test::write_file(dir / "metrics.jsonl", lines + "{\"step\":999,\"lo");
}

void write_quantizers(const fs::path& dir, int num_layers) {
  std::string lines;
  for (int step : {100, 200}) {
    json layers = json::array();
    for (int i = 0; i < num_layers; ++i)
      layers.push_back({{"name", "model.layers." + std::to_string(i) + ".mlp.up_proj"},
                        {"clipped", step == 200 ? .01 * (i + 1) : 0.},
                        {"changed", .005},
                        {"scale_drift", .125},
                        {"levels", {.1, .4, .3, .2}}});
    lines += json{{"step", step}, {"layers", layers}}.dump() + "\n";
  }
  test::write_file(dir / "quantizers.jsonl", lines);
}

void write_eval(const fs::path& dir, double excess) {
  const json results = {{"smoothness", smoothness(excess)}, {"robustness", robustness(excess)}};
  test::write_file(dir / "eval/valid.json", json{{"books", results}}.dump(1));
}

void write_tables(const fs::path& dir) {
  test::write_file(
      dir / "summary.json",
      R"({"rows": [{"name": "rtn", "bits": 2, "effective_bits": 2.28125, "perplexity": 487.9, "size_bytes": 8388608},
                   {"name": "qat", "bits": 2, "effective_bits": 2.28125, "perplexity": 33.1, "size_bytes": 8388608}]})");
  test::write_file(dir / "quantization.json",
                   R"([{"tensor": "model.layers.0.self_attn.q_proj", "method": "lsq", "bits": 2},
                       {"tensor": "model.layers.0.mlp.up_proj", "method": "lsq", "bits": 2},
                       {"tensor": "lm_head", "reason": "excluded"}])");
}

json data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t begin = page.find(open) + open.size();
  return json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

std::map<std::string, json> charts_by_title(const json& data) {
  std::map<std::string, json> charts;
  for (const json& grid : data["grids"])
    for (const json& chart : grid["charts"]) charts[chart["title"]] = chart;
  return charts;
}

}  // namespace satin::report
