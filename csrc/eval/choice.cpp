#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "eval/tasks.h"

namespace satin::eval {

Question parse_question(const nlohmann::json& record, const std::string& where) {
  const auto text = [&](const char* key) {
    if (!record[key].is_string()) throw UserError(cat(where, ": expected text in \"", key, "\""));
    return record[key].get<std::string>();
  };
  if (!record.is_object()) throw UserError(cat(where, ": expected an object"));
  if (record.contains("good") && record.contains("bad")) return {"", {text("good"), text("bad")}, 0};
  if (!record.contains("context") || !record.contains("choices") || !record.contains("answer"))
    throw UserError(
        cat(where, ": the choice task reads {\"good\", \"bad\"} or {\"context\", \"choices\", \"answer\"}"));
  Question question{text("context"), {}, 0};
  const auto& choices = record["choices"];
  if (!choices.is_array() || choices.size() < 2) throw UserError(cat(where, ": expected two or more \"choices\""));
  for (const auto& choice : choices) {
    if (!choice.is_string()) throw UserError(cat(where, ": expected text in \"choices\""));
    question.choices.push_back(choice.get<std::string>());
  }
  const auto& answer = record["answer"];
  if (answer.is_number_unsigned()) {
    question.answer = answer.get<size_t>();
  } else if (answer.is_string()) {
    const auto found = std::find(question.choices.begin(), question.choices.end(), answer.get<std::string>());
    question.answer = static_cast<size_t>(found - question.choices.begin());
  } else {
    throw UserError(cat(where, ": expected an index or one of the choices in \"answer\""));
  }
  if (question.answer >= question.choices.size()) throw UserError(cat(where, ": \"answer\" is none of the choices"));
  return question;
}

Choice choice(models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer, const std::vector<Question>& questions,
              const ScoreOptions& options, dist::Communicator& ranks) {
  std::vector<std::vector<int32_t>> sequences;
  std::vector<size_t> first_scored;  // index into Scores::log_prob
  for (const Question& question : questions) {
    for (const std::string& continuation : question.choices) {
      std::vector<int32_t> ids;
      if (tokenizer.bos_id() >= 0) ids.push_back(tokenizer.bos_id());
      size_t first = ids.size();  // of the continuation's tokens: the first that reaches past the context
      for (const auto& token : tokenizer.encode_with_spans(question.context + continuation)) {
        ids.push_back(token.id);
        if (token.end <= question.context.size()) first = ids.size();
      }
      if (ids.size() < 2 || first >= ids.size())
        throw UserError(cat("the choice task found a continuation without tokens: \"", continuation, "\""));
      first_scored.push_back(std::max<size_t>(first, 1) - 1);
      sequences.push_back(std::move(ids));
    }
  }
  const std::vector<Scores> scores = score(decoder, sequences, options, ranks);

  Choice result;
  size_t next = 0;
  for (const Question& question : questions) {
    size_t best = 0, best_per_token = 0;
    double best_sum = -1e300, best_mean = -1e300;
    for (size_t c = 0; c < question.choices.size(); ++c, ++next) {
      const auto& log_prob = scores[next].log_prob;
      double sum = 0;
      for (size_t t = first_scored[next]; t < log_prob.size(); ++t) sum += log_prob[t];
      const double mean = sum / static_cast<double>(log_prob.size() - first_scored[next]);
      if (sum > best_sum) best = c, best_sum = sum;
      if (mean > best_mean) best_per_token = c, best_mean = mean;
    }
    ++result.num_questions;
    result.correct += best == question.answer;
    result.correct_per_token += best_per_token == question.answer;
  }
  return result;
}

}  // namespace satin::eval
