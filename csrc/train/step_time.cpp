#include "train/step_time.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/error.h"

namespace satin::train {
namespace {

struct Kind {
  const char* name;
  double StepShares::*value;
};
constexpr Kind kKinds[] = {{"compute_ms", &StepShares::compute_ms},
                           {"communication_ms", &StepShares::communication_ms},
                           {"data_ms", &StepShares::data_ms}};

double mean_of(const std::vector<StepShares>& ranks, double StepShares::*value) {
  double sum = 0;
  for (const StepShares& rank : ranks) sum += rank.*value;
  return sum / static_cast<double>(ranks.size());
}

}  // namespace

void StepTime::begin() {
  begin_s_ = now_s();
  waited_s_ = sharing_.waited_s();
}

void StepTime::data_is_here() { data_s_ += now_s() - begin_s_; }

void StepTime::end() {
  total_s_ += now_s() - begin_s_;
  communication_s_ += sharing_.waited_s() - waited_s_;
  ++num_steps_;
}

std::vector<StepShares> StepTime::take() {
  SATIN_CHECK(num_steps_ > 0, "no step");
  const double scale = 1e3 / static_cast<double>(num_steps_);
  const auto rank = static_cast<size_t>(sharing_.world->rank()), size = static_cast<size_t>(sharing_.world->size());
  std::vector<double> mine(3 * size, 0.0);  // the sum over ranks brings each its own
  mine[3 * rank] = (total_s_ - communication_s_ - data_s_) * scale;
  mine[3 * rank + 1] = communication_s_ * scale;
  mine[3 * rank + 2] = data_s_ * scale;
  const std::vector<double> all = sharing_.world->sum(mine);
  std::vector<StepShares> shares(size);
  for (size_t i = 0; i < size; ++i) shares[i] = {all[3 * i], all[3 * i + 1], all[3 * i + 2]};
  sums_.resize(size);
  if (num_takes_++ > 0) {
    for (size_t i = 0; i < size; ++i)
      for (const Kind& kind : kKinds) sums_[i].*kind.value += shares[i].*kind.value * static_cast<double>(num_steps_);
    num_summed_ += num_steps_;
  }
  total_s_ = communication_s_ = data_s_ = 0;
  num_steps_ = 0;
  return shares;
}

std::vector<StepShares> StepTime::mean() const {
  std::vector<StepShares> means = sums_;
  if (num_summed_ == 0) return {};
  for (StepShares& rank : means)
    for (const Kind& kind : kKinds) rank.*kind.value /= static_cast<double>(num_summed_);
  return means;
}

nlohmann::ordered_json step_time_json(const std::vector<StepShares>& ranks) {
  nlohmann::ordered_json json;
  for (const Kind& kind : kKinds) json[kind.name] = mean_of(ranks, kind.value);
  if (ranks.size() == 1) return json;
  for (const Kind& kind : kKinds)
    for (const StepShares& rank : ranks) json["ranks"][kind.name].push_back(rank.*kind.value);
  return json;
}

std::string step_time_text(const std::vector<StepShares>& ranks) {
  const auto of = [&](double StepShares::*value) { return fixed(mean_of(ranks, value), 2); };
  std::string text = cat("a step: compute ", of(&StepShares::compute_ms), " ms, exposed communication ",
                         of(&StepShares::communication_ms), " ms, waiting for data ", of(&StepShares::data_ms), " ms");
  if (ranks.size() == 1) return text;
  const auto slowest = std::ranges::max_element(ranks, {}, &StepShares::compute_ms);
  return cat(text, " (mean of ", ranks.size(), " processes; rank ", slowest - ranks.begin(), " computes longest, ",
             fixed(slowest->compute_ms, 2), " ms)");
}

}  // namespace satin::train
