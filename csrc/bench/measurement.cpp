#include "bench/measurement.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace satin::bench {
namespace {

/// One digit is over 1 % of a time of a few microseconds.
std::string digits(double us) { return fixed(us, us < 100 ? 2 : 1); }

}  // namespace

double fraction_of_floor(const Measurement& measurement) {
  return measurement.us > 0 ? measurement.floor_us / measurement.us : 0;
}

std::string table(const std::vector<Measurement>& measurements) {
  size_t width = 72;
  for (const Measurement& m : measurements) width = std::max(width, m.name.size());
  std::string out;
  char line[256];
  for (const Measurement& m : measurements) {
    std::snprintf(line, sizeof line, "%13s us  (%s .. %s)", digits(m.us).c_str(), digits(m.least_us).c_str(),
                  digits(m.most_us).c_str());
    out += m.name + std::string(width - m.name.size(), ' ') + line;
    if (m.floor_us > 0) out += cat("  floor ", digits(m.floor_us), " us, ", fixed(100 * fraction_of_floor(m), 1), " %");
    out += (m.note.empty() ? "" : "  " + m.note) + "\n";
  }
  return out;
}

nlohmann::json to_json(const std::vector<Measurement>& measurements) {
  auto rows = nlohmann::json::array();
  for (const Measurement& m : measurements)
    rows.push_back({{"name", m.name},
                    {"us", m.us},
                    {"least_us", m.least_us},
                    {"most_us", m.most_us},
                    {"floor_us", m.floor_us},
                    {"fraction_of_floor", fraction_of_floor(m)},
                    {"note", m.note}});
  return rows;
}

}  // namespace satin::bench
