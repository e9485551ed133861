// Checks that need more than one key: rules of the methods, conflicts, what a job needs.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"

namespace satin::config {

/// Called for each problem with the keys that it is about (the first says where it stands) and the message.
using Report = std::function<void(const std::vector<std::string>& keys, const std::string& message)>;

void validate(const Config& config, Job job, const Report& report);

/// Bits that a method implies (seq 2, ternary 1.58), or nothing.
std::optional<double> implied_bits(const std::string& method);

}  // namespace satin::config
