#include "bench/measurement.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace satin::bench {

double fraction_of_floor(const Measurement& measurement) {
  return measurement.us > 0 ? measurement.floor_us / measurement.us : 0;
}

std::string table(const std::vector<Measurement>& measurements) {
  size_t width = 72;
  for (const Measurement& m : measurements) width = std::max(width, m.name.size());
  std::string out;
  char line[256];
  for (const Measurement& m : measurements) {
    std::snprintf(line, sizeof line, " %12.1f us  (%.1f .. %.1f)", m.us, m.least_us, m.most_us);
    out += m.name + std::string(width - m.name.size(), ' ') + line;
    if (m.floor_us > 0) {
      std::snprintf(line, sizeof line, "  floor %.1f us, %.1f %%", m.floor_us, 100 * fraction_of_floor(m));
      out += line;
    }
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
