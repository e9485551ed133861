#include "report/allocation.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"

namespace satin::report {
using nlohmann::ordered_json;
namespace {

double number(const ordered_json& value) {  // what was not measured is null
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

AllocationResult result_of(const std::string& name, const ordered_json& json) {
  return {name, json.at("bits").get<std::vector<double>>(), number(json.at("effective_bits")),
          number(json.at("perplexity")), number(json.at("answers"))};
}

}  // namespace

AllocationData read_allocation(const std::filesystem::path& path) {
  AllocationData found;
  try {
    const ordered_json json = ordered_json::parse(read_file(path));
    const ordered_json& full = json.at("full_precision");
    found.full_precision = {"full precision", {}, 16, number(full.at("perplexity")), number(full.at("answers"))};
    for (const auto& [name, list] : json.at("lists").items()) found.lists.push_back(result_of(name, list));
    if (json.contains("frontier"))
      for (const ordered_json& point : json["frontier"]) found.frontier.push_back(result_of("budgets", point));
    for (const ordered_json& layer : json.at("sensitivity"))
      for (const auto& [bits, cost] : layer.items()) {
        auto at = std::ranges::find(found.costs, bits, &std::pair<std::string, std::vector<double>>::first);
        if (at == found.costs.end()) at = found.costs.insert(found.costs.end(), {bits, {}});
        at->second.push_back(number(cost));
      }
    if (json.contains("kendall_tau"))
      for (const auto& [bits, tau] : json["kendall_tau"].items()) found.kendall_tau.emplace_back(bits, number(tau));
  } catch (const ordered_json::exception& error) {
    throw UserError(cat(path.string(), ": expected what satin allocate writes: ", error.what()));
  }
  return found;
}

}  // namespace satin::report
