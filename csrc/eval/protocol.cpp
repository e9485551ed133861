#include "eval/protocol.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace satin::eval {
namespace {

double ratio(int64_t part, int64_t whole) { return whole ? static_cast<double>(part) / static_cast<double>(whole) : 0; }

}  // namespace

nlohmann::json arithmetic(const models::Decoder& decoder) {
  const nn::BuildOptions& options = decoder.parameters().options();
  return {{"device", options.device.is_cuda() ? "cuda" : "cpu"},
          {"compute_dtype", c10::toString(options.compute_dtype)}};
}

nlohmann::json to_json(const Perplexity& result, const models::Decoder& decoder, const std::string& documents) {
  nlohmann::json protocol = arithmetic(decoder);
  protocol["documents"] = documents;
  protocol["windows"] = result.num_windows;
  protocol["sequence_length"] = result.sequence_length;
  protocol["predictions_per_window"] = result.num_windows ? result.num_predictions / result.num_windows : 0;
  protocol["tail"] = result.short_window ? "the text is one short window" : "dropped";
  return {{"perplexity", result.perplexity()},
          {"nll", result.nll},
          {"tokens", result.num_predictions},
          {"protocol", protocol}};
}

nlohmann::json to_json(const Choice& result, const models::Decoder& decoder) {
  nlohmann::json protocol = arithmetic(decoder);
  protocol["score"] = "log-likelihood of the continuation after BOS and the context; per_token divides by its tokens";
  return {{"accuracy", ratio(result.correct, result.num_questions)},
          {"accuracy_per_token", ratio(result.correct_per_token, result.num_questions)},
          {"correct", result.correct},
          {"questions", result.num_questions},
          {"protocol", protocol}};
}

nlohmann::json to_json(const Annotations& result, const models::Decoder& decoder) {
  nlohmann::json protocol = arithmetic(decoder);
  protocol["score"] =
      "teacher-forced, one document at a time: every token that overlaps the result of <<expression=result>> is the "
      "argmax";
  return {{"accuracy", ratio(result.exact, result.total)},
          {"exact", result.exact},
          {"total", result.total},
          {"protocol", protocol}};
}

}  // namespace satin::eval
