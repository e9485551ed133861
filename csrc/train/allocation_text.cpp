#include "train/allocation_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.h"

namespace satin::train {
namespace {

constexpr const char* kRow = "%-16s %7s %10s %12s %10s  %s\n";

std::string row(const std::string& name, const std::string& bits, const std::string& effective,
                const std::string& perplexity, const std::string& answers, const std::string& layers) {
  std::string text(128 + layers.size() + name.size(), '\0');
  text.resize(
      static_cast<size_t>(std::snprintf(text.data(), text.size(), kRow, name.c_str(), bits.c_str(), effective.c_str(),
                                        perplexity.c_str(), answers.c_str(), layers.c_str())));
  return text;
}

}  // namespace

std::string override_list(const std::vector<int>& bits_of_layers, const ColumnBits& columns) {
  std::string text;
  for (size_t i = 0; i < bits_of_layers.size(); ++i)
    text += cat("- {match: \"model.layers.", i, ".*\", bits: ", bits_of_layers[i], "}\n");
  for (const auto& [module, bits] : columns) {
    std::string list;
    for (const int64_t value : bits) list += cat(list.empty() ? "" : ", ", value);
    text += cat("- {match: \"", module, "\", bits: ", std::ranges::max(bits), ", column_bits: [", list, "]}\n");
  }
  return text;
}

std::string allocation_header() { return row("", "bits", "effective", "perplexity", "answers", "layers"); }

std::string allocation_line(const std::string& name, double mean_bits, double effective_bits, double perplexity,
                            double answers, const std::vector<int>& bits) {
  std::string layers;
  for (const int value : bits) layers += cat(layers.empty() ? "" : " ", value);
  return row(name, fixed(mean_bits, 3), fixed(effective_bits, 3), fixed(perplexity, 3),
             std::isnan(answers) ? "-" : fixed(answers, 4), layers);
}

}  // namespace satin::train
