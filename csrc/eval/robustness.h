// How a model reads text that is not quite right: the predictions that a user sees when a token is wrong or its
// embedding noisy. Targets stay the true next tokens. Own formulation (see README.md).
#pragma once
#include <array>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "dist/communicator.h"
#include "eval/score.h"
#include "eval/window_means.h"
#include "eval/windows.h"

namespace satin::eval {

struct RobustnessOptions {
  int64_t sequence_length = 1024;
  int64_t limit = 0;                 ///< at most so many windows; 0: all
  int64_t num_tokens = 0;            ///< the vocabulary without padding; 0: all of the model's
  std::vector<int32_t> special_ids;  ///< never replaced, never drawn
  uint64_t seed = 0;
  ScoreOptions score = {.argmax = true};
};

inline constexpr std::array<double, 3> kSubstitutionRates = {.01, .05, .15};
/// Standard deviation of the noise over the RMS of the window's embeddings.
inline constexpr std::array<double, 3> kNoiseStrengths = {.05, .1, .2};

/// Negative log-likelihoods (nats) and decisions of one model, by window.
struct ModelRobustness {
  WindowMeans clean;
  std::array<WindowMeans, kSubstitutionRates.size()> substituted;
  std::array<WindowMeans, kNoiseStrengths.size()> noisy;
  WindowMeans flips;  ///< argmax changed by one wrong token, of the predictions after it
};

struct Robustness {
  ModelRobustness student;
  std::optional<ModelRobustness> teacher;
  WindowMeans agreement;              ///< with a teacher: equal argmax on the text itself
  WindowMeans agreement_perturbed;    ///< ... after one wrong token, of the predictions after it
  WindowMeans agreement_unperturbed;  ///< ... of the same predictions, had that token been right
  Windows windows;
  RobustnessOptions options;
};

/// `teacher` may be null or the student itself; several ranks share the work (in_batches.h). Throws UserError for a
/// text of fewer than 2 tokens.
Robustness robustness(models::Decoder& student, models::Decoder* teacher, const std::vector<int32_t>& tokens,
                      const RobustnessOptions& options = {}, dist::Communicator& ranks = *dist::Communicator::alone());

/// With 95 % intervals ("student_ci95", "teacher_ci95", "ratio_ci95" of the paired ratio) and the protocol.
nlohmann::json to_json(const Robustness& result, const models::Decoder& decoder, const std::string& documents);
std::string robustness_table(const nlohmann::json& result);

}  // namespace satin::eval
