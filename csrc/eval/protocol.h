// Results as JSON, with the protocol that makes them comparable.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "eval/tasks.h"

namespace satin::eval {

/// What every task's protocol says: on what and in which dtype the numbers were computed.
nlohmann::json arithmetic(const models::Decoder& decoder);

/// {"perplexity", "nll", "tokens", "protocol": {...}}; `documents`: documents_protocol() of the text.
nlohmann::json to_json(const Perplexity& result, const models::Decoder& decoder, const std::string& documents);
/// {"accuracy", "accuracy_per_token", "correct", "questions", "protocol"}.
nlohmann::json to_json(const Choice& result, const models::Decoder& decoder);
/// {"accuracy", "exact", "total", "protocol"}.
nlohmann::json to_json(const Annotations& result, const models::Decoder& decoder);

}  // namespace satin::eval
