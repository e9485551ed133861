#include "train/allocate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "allocate/allocation.h"
#include "allocate/controls.h"
#include "allocate/mixture.h"
#include "allocate/rank_correlation.h"
#include "config/config.h"
#include "config/unchanged.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "ops/device.h"
#include "report/html.h"
#include "report/metrics.h"
#include "report/progress.h"
#include "train/allocation_text.h"
#include "train/column_choice.h"
#include "train/layer_curvature.h"
#include "train/measured_layers.h"
#include "train/training_data.h"

namespace satin::train {
namespace {

constexpr int64_t kProbes = 8;  // of the Hessian's traces
constexpr int kFullPrecision = 16;

/// Losses by (layer, bits) that an earlier run wrote; key (-1, 16): of full precision.
using Measured = std::map<std::pair<int64_t, int>, LayerLosses>;

Measured read_measured(const fs::path& path) {
  Measured found;
  if (!fs::exists(path)) return found;
  for (const auto& entry : report::read_metrics(path)) {
    const nlohmann::ordered_json& answers = entry.at("answers");
    found[{entry.at("block").get<int64_t>(), entry.at("bits").get<int>()}] = {
        entry.at("perplexity").get<double>(), answers.is_null() ? std::nan("") : answers.get<double>()};
  }
  return found;
}

/// Measures what `measured` lacks; every result is on the disk before the next is begun. `full_only`: full precision.
void measure(const config::Config& config, const MeasuredLayers& model, const fs::path& log, bool full_only,
             Measured& measured) {
  report::MetricsLog file(log, static_cast<int64_t>(measured.size()) - 1);
  const size_t total = full_only ? 1 : model.size() * config.allocate.candidates.size() + 1;
  const auto once = [&](int64_t layer, int bits) {
    if (measured.contains({layer, bits})) return;
    std::vector<int> all(model.size(), 0);
    if (layer >= 0) all[static_cast<size_t>(layer)] = bits;
    const LayerLosses found = model.losses(all);
    file.append({{"step", measured.size()},
                 {"block", layer},
                 {"bits", bits},
                 {"perplexity", found.perplexity},
                 {"answers", found.answers}});
    measured[{layer, bits}] = found;
    progress(cat("sensitivity ", measured.size(), " of ", total));
  };
  once(-1, kFullPrecision);
  for (size_t layer = 0; !full_only && layer < model.size(); ++layer)
    for (const double bits : config.allocate.candidates) once(static_cast<int64_t>(layer), static_cast<int>(bits));
  end_progress();
}

/// Layers whose choices cost what `cost(layer, bits)` says.
std::vector<allocate::Layer> layers_by(const config::Config& config, const MeasuredLayers& model,
                                       const std::function<double(size_t, int)>& cost) {
  std::vector<allocate::Layer> layers;
  for (size_t layer = 0; layer < model.size(); ++layer) {
    layers.push_back({model.num_parameters(layer), {}});
    for (const double bits : config.allocate.candidates)
      layers.back().choices.push_back({static_cast<int>(bits), cost(layer, static_cast<int>(bits))});
  }
  return layers;
}

/// The relative rise of both losses: beta (of the answers) + (1 - beta) (of perplexity).
double rise_of(const LayerLosses& found, const LayerLosses& full, double beta) {
  double rise = (1 - beta) * (found.perplexity / full.perplexity - 1);
  if (beta > 0) rise += beta * (found.answers / full.answers - 1);
  return rise;
}

std::vector<allocate::Layer> layers_by_losses(const config::Config& config, const MeasuredLayers& model,
                                              const Measured& measured, double beta) {
  return layers_by(config, model, [&](size_t layer, int bits) {
    return rise_of(measured.at({static_cast<int64_t>(layer), bits}), measured.at({-1, kFullPrecision}), beta);
  });
}

std::vector<allocate::Layer> layers_by_curvature(const config::Config& config, const MeasuredLayers& model) {
  const at::Tensor tokens = model.general_tokens();
  models::Decoder& decoder = *model.student().decoder;
  const quant::Registry& registry = *model.student().registry;
  const Curvature curvature =
      config.allocate.sensitivity == "fisher"
          ? fisher_curvature(decoder, registry, tokens)
          : hessian_curvature(decoder, registry, tokens, config.train.micro_batch_size, kProbes, config.train.seed);
  return layers_by(config, model, [&](size_t layer, int bits) {
    std::vector<int> all(model.size(), 0);
    all[layer] = bits;
    model.round(all);
    return rounding_cost(curvature, model.modules(layer));
  });
}

/// Kendall's tau between the two losses' rises over layers, at each of the candidates.
nlohmann::ordered_json agreement_of(const config::Config& config, const MeasuredLayers& model,
                                    const Measured& measured) {
  nlohmann::ordered_json found;
  std::string text;
  for (const double candidate : config.allocate.candidates) {
    const int bits = static_cast<int>(candidate);
    std::vector<double> perplexity, answers;
    for (size_t layer = 0; layer < model.size(); ++layer) {
      const LayerLosses& losses = measured.at({static_cast<int64_t>(layer), bits});
      perplexity.push_back(losses.perplexity);
      answers.push_back(losses.answers);
    }
    const double tau = allocate::kendall_tau(perplexity, answers);
    found[std::to_string(bits)] = tau;
    text += cat(text.empty() ? "" : ", ", bits, " bits ", fixed(tau, 2));
  }
  log_info(cat("order of the layers by perplexity and by answers, Kendall's tau: ", text));
  return found;
}

std::vector<int> bits_of(const std::vector<allocate::Layer>& layers, const allocate::Allocation& found) {
  std::vector<int> bits;
  for (size_t i = 0; i < layers.size(); ++i) bits.push_back(layers[i].choices[found.chosen[i]].bits);
  return bits;
}

/// What a list of bits takes and gives.
nlohmann::ordered_json measured_list(const MeasuredLayers& model, const std::vector<int>& bits,
                                     const ColumnBits& columns = {}) {
  const LayerLosses losses = model.losses(bits, columns);
  double total = 0, count = 0;
  for (size_t i = 0; i < bits.size(); ++i) {
    total += static_cast<double>(bits[i]) * static_cast<double>(model.num_parameters(i));
    count += static_cast<double>(model.num_parameters(i));
  }
  return {{"bits", bits},
          {"mean_bits", total / count},
          {"effective_bits", model.effective_bits(bits, columns)},
          {"perplexity", losses.perplexity},
          {"answers", losses.answers}};
}

/// Each list is measured once: different budgets often get the same.
class Results {
 public:
  explicit Results(const MeasuredLayers& model) : model_(model) {}

  const nlohmann::ordered_json& of(const std::vector<int>& bits) {
    const auto [at, is_new] = known_.try_emplace(bits);
    if (is_new) at->second = measured_list(model_, bits);
    return at->second;
  }

 private:
  const MeasuredLayers& model_;
  std::map<std::vector<int>, nlohmann::ordered_json> known_;
};

/// Allocations of budgets between the fewest and the most bits, in even steps.
nlohmann::ordered_json frontier(const config::Config& config, Results& results,
                                const std::vector<allocate::Layer>& layers) {
  const auto [least, most] = std::ranges::minmax(config.allocate.candidates);
  nlohmann::ordered_json points = nlohmann::ordered_json::array();
  for (int64_t i = 0; i < config.allocate.pareto_points; ++i) {
    const double share =
        static_cast<double>(i) / static_cast<double>(std::max<int64_t>(1, config.allocate.pareto_points - 1));
    points.push_back(results.of(bits_of(layers, allocate::allocate_bits(layers, least + share * (most - least)))));
    progress(cat("budget ", i + 1, " of ", config.allocate.pareto_points));
  }
  end_progress();
  return points;
}

}  // namespace

void allocate(const config::Config& config, const Resume& resume) {
  SATIN_CHECK(config.quantization, "a config without quantization");
  const at::Device device = ops::resolve_device(config.train.device);
  const at::ScalarType compute_dtype = ops::resolve_compute_dtype(config.train.compute_dtype, device);
  const RunDirectory directory(config.train.output_dir, resume);
  log_to_file(directory.log());
  config::check_unchanged(directory.config(), config::dump(config), directory.path());
  ops::configure_numerics(config.train.deterministic);
  const auto tokenizer = tokenizer::Tokenizer::load(config.model.path);
  ops::reset_peak_memory(device);
  Student student = build_student(config, student_options(device, compute_dtype), {});
  check_vocabulary(tokenizer, student.decoder->config(), config.model.path);
  const at::Tensor general =
      read_sequences(open_training_data(config, tokenizer, directory.tokens()), config.allocate.samples).tokens;
  const MeasuredLayers model(config, std::move(student),
                             {general.const_data_ptr<int64_t>(), general.const_data_ptr<int64_t>() + general.numel()},
                             read_questions(config, tokenizer, static_cast<size_t>(config.allocate.samples)));
  write_file_atomically(directory.config(), config::dump(config));

  nlohmann::ordered_json result;
  if (model.has_questions()) {
    const auto mixture =
        allocate::best_mixture(model.general_energies(), model.question_energies(false), model.question_energies(true));
    result["mixture"] = {
        {"general_share", mixture.general_share}, {"shares", mixture.shares}, {"cosines", mixture.cosines}};
    log_info(cat("calibration text: ", fixed(100 * mixture.general_share, 0),
                 " % general text is closest to the reasoning texts in activation energy"));
  }
  const bool by_losses = config.allocate.sensitivity == "losses";
  const double beta = model.has_questions() ? config.allocate.reasoning_weight : 0;
  Measured measured = read_measured(directory.path() / "sensitivity.jsonl");
  measure(config, model, directory.path() / "sensitivity.jsonl", /*full_only=*/!by_losses, measured);
  if (by_losses && model.has_questions()) result["kendall_tau"] = agreement_of(config, model, measured);

  const double mean_bits = config.allocate.average_bits;
  const auto layers = by_losses ? layers_by_losses(config, model, measured, beta) : layers_by_curvature(config, model);
  std::vector<std::pair<std::string, allocate::Allocation>> lists{
      {"allocation", allocate::allocate_bits(layers, mean_bits)},
      {"uniform", allocate::uniform_bits(layers, mean_bits)}};
  if (by_losses && beta > 0)
    lists.emplace_back("perplexity-only",
                       allocate::allocate_bits(layers_by_losses(config, model, measured, 0), mean_bits));
  for (uint64_t i = 0; i < 3; ++i)
    lists.emplace_back(cat("random-", i), allocate::random_bits(layers, mean_bits, config.train.seed * 3 + i));

  Results results(model);
  const LayerLosses full = measured.at({-1, kFullPrecision});
  result["full_precision"] = {{"perplexity", full.perplexity}, {"answers", full.answers}};
  std::string table = allocation_header() + allocation_line("full precision", kFullPrecision, kFullPrecision,
                                                            full.perplexity, full.answers, {});
  for (const auto& [name, found] : lists) {
    const std::vector<int> bits = bits_of(layers, found);
    nlohmann::ordered_json list = results.of(bits);
    table += allocation_line(name, list["mean_bits"], list["effective_bits"], list["perplexity"],
                             list["answers"].get<double>(), bits);
    list["sensitivity"] = found.sensitivity;
    write_file_atomically(directory.path() / (name + ".yaml"), override_list(bits));
    result["lists"][name] = std::move(list);
  }
  std::string best = "allocation";
  if (config.allocate.columns) {  // the allocation's layers; its own list stays, as the control
    const std::vector<int> bits = bits_of(layers, lists.front().second);
    const auto choices = choose_columns(config, model, bits);
    const ColumnBits columns = changed_columns(choices);
    nlohmann::ordered_json list = measured_list(model, bits, columns);
    table += allocation_line("columns", list["mean_bits"], list["effective_bits"], list["perplexity"],
                             list["answers"].get<double>(), bits);
    list["sensitivity"] = lists.front().second.sensitivity;
    list["modules"] = choices_json(choices);
    write_file_atomically(directory.path() / "columns.yaml", override_list(bits, columns));
    // An output's error in each layer is one thing, the model's losses are another.
    const auto rise = [&](const nlohmann::ordered_json& of) {
      return rise_of({of["perplexity"].get<double>(), of["answers"].get<double>()}, full, beta);
    };
    if (rise(list) < rise(result["lists"]["allocation"])) best = "columns";
    result["lists"]["columns"] = std::move(list);
  }
  for (const auto& layer : layers) {
    nlohmann::ordered_json row;
    for (const auto& choice : layer.choices) row[std::to_string(choice.bits)] = choice.sensitivity;
    result["sensitivity"].push_back(row);
  }
  if (config.allocate.pareto_points > 0) result["frontier"] = frontier(config, results, layers);
  write_file_atomically(directory.path() / "allocation.json", result.dump(1) + "\n");
  report::write_report({directory.path()}, directory.report());
  std::printf("%s", table.c_str());
  log_info(cat("peak memory ", report::bytes_text(ops::peak_memory_bytes(device))));
  log_info(cat("report: ", directory.report().string()));
  if (config.allocate.columns && best != "columns")
    log_info("columns: with these the losses rise more than with equal bits, which are advised therefore");
  log_info(cat("use it: quantization.overrides_from=", (directory.path() / (best + ".yaml")).string()));
  close_log_file();
}

}  // namespace satin::train
