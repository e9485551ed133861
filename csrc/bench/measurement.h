// What a benchmark measures and how it is shown.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace satin::bench {

struct Measurement {
  std::string name;  ///< what ran, e.g. "lsq 4 bits group 64 bfloat16 [8192, 8192] forward"
  double us = 0;     ///< median time of one call, microseconds
  double least_us = 0, most_us = 0;
  double floor_us = 0;    ///< the least that the hardware allows (by bytes or operations); 0: none is known
  std::string note = {};  ///< what the floor counts, or other figures
};

/// floor / time: 1 is as fast as the hardware can.
double fraction_of_floor(const Measurement& measurement);

/// A line each: name, time, spread, floor and the fraction of it.
std::string table(const std::vector<Measurement>& measurements);
nlohmann::json to_json(const std::vector<Measurement>& measurements);

}  // namespace satin::bench
