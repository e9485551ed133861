#include "losses/objective.h"

#include "core/error.h"
#include "losses/cross_entropy.h"
#include "losses/distillation.h"
#include "losses/neighbourhood.h"
#include "losses/schedule.h"
#include "losses/smoothness.h"

namespace satin::losses {
namespace {

std::unique_ptr<LogitLoss> distillation(const config::Distillation& kd) {
  if (kd.kind == "forward") return std::make_unique<Distillation>(kd.temperature);
  if (kd.kind == "reverse") return std::make_unique<Distillation>(kd.temperature, 0);
  if (kd.kind == "jsd") return std::make_unique<Distillation>(kd.temperature, kd.mix, ops::Divergence::kJensenShannon);
  if (kd.kind == "cakld") return std::make_unique<Distillation>(kd.temperature, 1 - kd.mix);
  throw UserError(cat("loss.kd.kind: expected forward, reverse, jsd or cakld, found \"", kd.kind, "\""));
}

void require(bool condition, const char* key, const char* expected, double found) {
  if (!condition) throw UserError(cat("loss.", key, ": expected ", expected, ", found ", found));
}

}  // namespace

Objective::Objective(const config::Loss& loss, int64_t num_tokens) : config_(loss) {
  require(loss.kd.temperature > 0, "kd.temperature", "a number above 0", loss.kd.temperature);
  require(loss.smoothness.temperature > 0, "smoothness.temperature", "a number above 0", loss.smoothness.temperature);
  require(loss.smoothness.top_k >= 1, "smoothness.top_k", "at least 1", static_cast<double>(loss.smoothness.top_k));
  require(loss.smoothness.top_k <= ops::kMaxTopK, "smoothness.top_k", cat("at most ", ops::kMaxTopK).c_str(),
          static_cast<double>(loss.smoothness.top_k));
  if (loss.hidden.layers != "all" && loss.hidden.layers != "last")
    throw UserError(cat("loss.hidden.layers: expected all or last, found \"", loss.hidden.layers, "\""));
  require(loss.kd.mix > 0 && loss.kd.mix < 1, "kd.mix", "a number between 0 and 1", loss.kd.mix);
  std::unique_ptr<LogitLoss> kd = distillation(loss.kd);
  if (loss.ce.weight != 0) parts_.push_back({std::make_unique<CrossEntropy>(), loss.ce.weight, 0, 0});
  if (loss.kd.weight != 0) parts_.push_back({std::move(kd), loss.kd.weight, 0, 0});
  const config::Smoothness& smooth = loss.smoothness;
  if (smooth.weight != 0)
    parts_.push_back({std::make_unique<Smoothness>(smooth.top_k, smooth.temperature, num_tokens), smooth.weight,
                      smooth.start, smooth.ramp});
}

std::vector<Term> Objective::terms(double progress) const {
  std::vector<Term> terms;
  for (const Part& part : parts_)
    terms.push_back({part.loss.get(), part.weight * share_at(progress, part.start, part.ramp)});
  return terms;
}

bool Objective::needs_teacher(double progress) const {
  if (config_.hidden.weight != 0) return true;
  const std::vector<Term> now = terms(progress);
  return std::any_of(now.begin(), now.end(), [](const Term& t) { return t.weight != 0 && t.loss->needs_teacher(); });
}

std::optional<int64_t> Objective::top_k() const {
  return config_.smoothness.weight != 0 ? std::optional(config_.smoothness.top_k) : std::nullopt;
}

bool Objective::needs_teacher() const {
  const bool by_loss = config_.hidden.weight != 0 ||
                       std::any_of(parts_.begin(), parts_.end(), [](const Part& p) { return p.loss->needs_teacher(); });
  return by_loss || draws_from(config_.neighbourhood, "teacher");
}

}  // namespace satin::losses
