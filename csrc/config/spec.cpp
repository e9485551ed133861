#include "config/spec.h"

#include "config/scalar.h"

namespace satin::config {

std::vector<std::string> alternatives(const char* text) {
  constexpr std::string_view kBar = " | ";
  std::vector<std::string> parts;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t bar = rest.find(kBar);
    parts.emplace_back(rest.substr(0, bar));
    rest = bar == rest.npos ? "" : rest.substr(bar + kBar.size());
  }
  return parts;
}

std::string limits(const Spec& spec) {
  std::string text = spec.unit;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (*spec.one_of) add(std::string("one of ") + spec.one_of);
  if (spec.at_least > -kUnlimited && spec.at_most < kUnlimited) {
    add(format_number(spec.at_least) + " to " + format_number(spec.at_most));
  } else {
    if (spec.at_least > -kUnlimited) add("at least " + format_number(spec.at_least));
    if (spec.at_most < kUnlimited) add("at most " + format_number(spec.at_most));
  }
  if (spec.above > -kUnlimited) add("above " + format_number(spec.above));
  if (spec.below < kUnlimited) add("below " + format_number(spec.below));
  return text;
}

}  // namespace satin::config
