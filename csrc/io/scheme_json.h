// A scheme as JSON: what a checkpoint's manifest says about a module.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "quant/scheme.h"

namespace satin::io {

nlohmann::json scheme_to_json(const quant::Scheme& scheme);
/// The inverse. Throws UserError with `where`.
quant::Scheme scheme_from_json(const nlohmann::json& json, const std::string& where);

}  // namespace satin::io
