#include "train/allocate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "allocate/allocation.h"
#include "allocate/controls.h"
#include "allocate/mixture.h"
#include "config/config.h"
#include "core/error.h"
#include "core/file.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "data/loader.h"
#include "data/text_source.h"
#include "eval/corpus.h"
#include "eval/tasks.h"
#include "ops/device.h"
#include "report/metrics.h"
#include "train/allocation_text.h"
#include "train/models.h"
#include "train/training_data.h"

namespace satin::train {
namespace {

/// Loss of a model on general text, and on the answers of questions (NaN without any).
struct Losses {
  double perplexity, answers;
};

/// Documents whose answers are scored: ids, and the first id that belongs to the answer.
struct Question {
  std::vector<int32_t> ids;
  size_t first_answer;
};

std::vector<Question> read_questions(const config::Config& config, const tokenizer::Tokenizer& tokenizer,
                                     size_t limit) {
  std::vector<Question> questions;
  const std::string& marker = config.allocate.answer_after;
  for (const config::DataSource& source : config.allocate.reasoning) {
    data::TextSource text(source);
    data::Document document;
    size_t read = 0;
    while (read < limit && text.next(document)) {
      const size_t at = document.text.find(marker);
      if (at == std::string::npos) continue;
      Question question;
      question.first_answer = 0;
      if (tokenizer.bos_id() >= 0) question.ids.push_back(tokenizer.bos_id());
      for (const auto& span : tokenizer.encode_with_spans(document.text)) {
        if (question.first_answer == 0 && span.begin >= at + marker.size()) question.first_answer = question.ids.size();
        question.ids.push_back(span.id);
      }
      if (question.first_answer == 0) continue;  // nothing follows
      questions.push_back(std::move(question));
      ++read;
    }
    if (read == 0)
      throw UserError(cat("allocate.reasoning: no document of ", source.path, " has an answer after \"", marker,
                          "\"; set allocate.answer_after to what stands before answers there"));
  }
  return questions;
}

/// data.train's first sequences, one after the other.
std::vector<int32_t> read_general(const config::Config& config, const data::Dataset& dataset) {
  data::Loader loader(dataset, {.share = {1, 1}});
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < config.allocate.samples; ++i) {
    const at::Tensor tokens = loader.next().batch.tokens.flatten();
    const int64_t* values = tokens.const_data_ptr<int64_t>();
    ids.insert(ids.end(), values, values + tokens.numel());
  }
  return ids;
}

class Measuring {
 public:
  Measuring(const config::Config& config, Student student, std::vector<int32_t> general,
            std::vector<Question> questions)
      : config_(config), student_(std::move(student)), general_(std::move(general)), questions_(std::move(questions)) {
    for (int64_t block = 0; block < student_.decoder->config().num_layers; ++block)
      blocks_.push_back(student_.registry->in_block(block));
  }

  size_t num_blocks() const { return blocks_.size(); }
  int64_t num_parameters(size_t block) const {
    int64_t count = 0;
    for (const auto* module : blocks_[block]) count += module->linear->master_weight().numel();
    return count;
  }
  /// Stored bits a weight, scales and zero points included, with these bits of each block.
  double effective_bits(const std::vector<int>& bits) const {
    double total = 0, count = 0;
    for (size_t block = 0; block < blocks_.size(); ++block)
      for (const auto* module : blocks_[block]) {
        quant::Scheme scheme = module->scheme;
        scheme.bits = bits[block];
        const at::Tensor weight = module->linear->master_weight();
        total += scheme.effective_bits(weight.size(0), weight.size(1)) * static_cast<double>(weight.numel());
        count += static_cast<double>(weight.numel());
      }
    return total / count;
  }

  /// Every block in full precision but those with bits above 0.
  Losses losses(const std::vector<int>& bits) const {
    if (const int signal = interrupt_signal())
      throw InterruptedError(cat("stopped by signal ", signal, "; --resume auto goes on from what was measured"));
    student_.registry->enable(false);
    for (size_t block = 0; block < blocks_.size(); ++block)
      for (const auto* module : blocks_[block]) {
        if (bits[block] == 0) continue;
        module->linear->set_bits(bits[block], /*keep_range=*/false);
        module->linear->initialise();
        module->linear->enable(true);
        if (module->wrapper) module->wrapper->enable(true);
      }
    return {eval::perplexity(*student_.decoder, general_, config_.train.sequence_length).perplexity(), answer_loss()};
  }

  /// Mean squares of each layer's input on the sequences [first, last) of general text, or on questions.
  std::vector<double> general_energies() const {
    Energies energies(num_blocks());
    const int64_t length = config_.train.sequence_length;
    for (int64_t i = 0; (i + 1) * length <= static_cast<int64_t>(general_.size()); ++i)
      see({general_.begin() + i * length, general_.begin() + (i + 1) * length}, energies);
    return energies.means();
  }
  std::vector<double> question_energies(bool odd) const {
    Energies energies(num_blocks());
    for (size_t i = odd ? 1 : 0; i < questions_.size(); i += 2) see(questions_[i].ids, energies);
    return energies.means();
  }
  bool has_questions() const { return !questions_.empty(); }

 private:
  struct Energies {
    std::vector<double> sums;
    double num_tokens = 0;
    explicit Energies(size_t layers) : sums(layers, 0) {}
    std::vector<double> means() const {
      std::vector<double> found = sums;
      for (double& value : found) value /= std::max(1.0, num_tokens);
      return found;
    }
  };

  void see(const std::vector<int32_t>& ids, Energies& energies) const {
    const at::NoGradGuard no_grad;
    student_.registry->enable(false);
    std::vector<at::Tensor> taps;
    student_.decoder->hidden(at::tensor(at::ArrayRef<int32_t>(ids), at::kInt).to(at::kLong).unsqueeze(0),
                             {.taps = &taps});
    for (size_t i = 0; i < taps.size(); ++i) energies.sums[i] += taps[i].square().sum(at::kDouble).item<double>();
    energies.num_tokens += static_cast<double>(ids.size());
  }

  /// Mean -ln p of all answers' tokens.
  double answer_loss() const {
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

  const config::Config& config_;
  Student student_;
  std::vector<int32_t> general_;
  std::vector<Question> questions_;
  std::vector<std::vector<const quant::QuantizedModule*>> blocks_;
};

/// Losses by (block, bits) that an earlier run wrote; key (-1, 16): of full precision.
using Measured = std::map<std::pair<int64_t, int>, Losses>;

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

/// Measures what `measured` lacks; every result is on the disk before the next is begun.
void measure(const config::Config& config, const Measuring& model, const fs::path& log, Measured& measured) {
  report::MetricsLog file(log, static_cast<int64_t>(measured.size()) - 1);
  const size_t total = model.num_blocks() * config.allocate.candidates.size() + 1;
  const auto once = [&](int64_t block, int bits) {
    if (measured.contains({block, bits})) return;
    std::vector<int> all(model.num_blocks(), 0);
    if (block >= 0) all[static_cast<size_t>(block)] = bits;
    const Losses found = model.losses(all);
    file.append({{"step", measured.size()},
                 {"block", block},
                 {"bits", bits},
                 {"perplexity", found.perplexity},
                 {"answers", found.answers}});
    measured[{block, bits}] = found;
    progress(cat("sensitivity ", measured.size(), " of ", total));
  };
  once(-1, 16);
  for (size_t block = 0; block < model.num_blocks(); ++block)
    for (const double bits : config.allocate.candidates) once(static_cast<int64_t>(block), static_cast<int>(bits));
  end_progress();
}

/// S(l, b) = beta (rise of the answers' loss) + (1 - beta) (rise of perplexity), both relative.
std::vector<allocate::Layer> layers_of(const config::Config& config, const Measuring& model, const Measured& measured,
                                       double beta) {
  const Losses& full = measured.at({-1, 16});
  std::vector<allocate::Layer> layers;
  for (size_t block = 0; block < model.num_blocks(); ++block) {
    allocate::Layer layer{model.num_parameters(block), {}};
    for (const double bits : config.allocate.candidates) {
      const Losses& found = measured.at({static_cast<int64_t>(block), static_cast<int>(bits)});
      double rise = (1 - beta) * (found.perplexity / full.perplexity - 1);
      if (beta > 0) rise += beta * (found.answers / full.answers - 1);
      layer.choices.push_back({static_cast<int>(bits), rise});
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

void check_same(const fs::path& path, const config::Config& config) {
  if (fs::exists(path) && read_file(path) != config::dump(config))
    throw UserError(cat("--resume: ", path.string(),
                        " differs from this configuration, of which nothing was measured "
                        "there; choose another train.output_dir, or the configuration of before"));
}

}  // namespace

void allocate(const config::Config& config, const Resume& resume) {
  SATIN_CHECK(config.quantization, "a config without quantization");
  const at::Device device = ops::resolve_device(config.train.device);
  const at::ScalarType compute_dtype = ops::resolve_compute_dtype(config.train.compute_dtype, device);
  const RunDirectory directory(config.train.output_dir, resume);
  log_to_file(directory.log());
  check_same(directory.config(), config);
  ops::configure_numerics(config.train.deterministic);
  const auto tokenizer = tokenizer::Tokenizer::load(config.model.path);
  Student student = build_student(config, student_options(device, compute_dtype), {});
  check_vocabulary(tokenizer, student.decoder->config(), config.model.path);
  const data::Dataset dataset = open_training_data(config, tokenizer, directory.tokens());
  const Measuring model(config, std::move(student), read_general(config, dataset),
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
  Measured measured = read_measured(directory.path() / "sensitivity.jsonl");
  measure(config, model, directory.path() / "sensitivity.jsonl", measured);

  const double beta = model.has_questions() ? config.allocate.reasoning_weight : 0;
  const double mean_bits = config.allocate.average_bits;
  const auto layers = layers_of(config, model, measured, beta);
  std::vector<std::pair<std::string, allocate::Allocation>> lists{
      {"allocation", allocate::allocate_bits(layers, mean_bits)},
      {"uniform", allocate::uniform_bits(layers, mean_bits)}};
  if (beta > 0)
    lists.emplace_back("perplexity-only", allocate::allocate_bits(layers_of(config, model, measured, 0), mean_bits));
  for (uint64_t i = 0; i < 3; ++i)
    lists.emplace_back(cat("random-", i), allocate::random_bits(layers, mean_bits, config.train.seed * 3 + i));

  const Losses full = measured.at({-1, 16});
  result["full_precision"] = {{"perplexity", full.perplexity}, {"answers", full.answers}};
  std::printf("%s", allocation_header().c_str());
  std::printf("%s", allocation_line("full precision", 16, 16, full.perplexity, full.answers, {}).c_str());
  for (const auto& [name, found] : lists) {
    std::vector<int> bits;
    int64_t num_parameters = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      bits.push_back(layers[i].choices[found.chosen[i]].bits);
      num_parameters += layers[i].num_parameters;
    }
    const Losses all = model.losses(bits);
    const double mean = static_cast<double>(found.total_bits) / static_cast<double>(num_parameters);
    const double effective = model.effective_bits(bits);
    result["lists"][name] = {{"bits", bits},
                             {"mean_bits", mean},
                             {"effective_bits", effective},
                             {"perplexity", all.perplexity},
                             {"answers", all.answers},
                             {"sensitivity", found.sensitivity}};
    write_file_atomically(directory.path() / (name + ".yaml"), override_list(bits));
    std::printf("%s", allocation_line(name, mean, effective, all.perplexity, all.answers, bits).c_str());
  }
  for (const auto& layer : layers) {
    nlohmann::ordered_json row;
    for (const auto& choice : layer.choices) row[std::to_string(choice.bits)] = choice.sensitivity;
    result["sensitivity"].push_back(row);
  }
  write_file_atomically(directory.path() / "allocation.json", result.dump(1) + "\n");
  log_info(cat("use it: quantization.overrides_from=", (directory.path() / "allocation.yaml").string()));
  close_log_file();
}

}  // namespace satin::train
