// One value of a key: from a YAML node, and back to YAML text.
#pragma once
#include <cstdint>
#include <string>

#include "config/document.h"
#include "config/spec.h"

namespace satin::config {

/// Each reads `node` into `out` within the limits of `spec`, or leaves `out` alone and returns what was expected and
/// found; "" is success. Paths become absolute.
std::string read_value(const Node& node, const Spec& spec, bool& out);
std::string read_value(const Node& node, const Spec& spec, int64_t& out);
std::string read_value(const Node& node, const Spec& spec, uint64_t& out);
std::string read_value(const Node& node, const Spec& spec, double& out);
std::string read_value(const Node& node, const Spec& spec, std::string& out);

/// Shortest text that reads back to the same number, in this room and in YAML 1.1 readers ("1.0e-08").
std::string format_number(double value);

std::string format_value(bool value);
std::string format_value(int64_t value);
std::string format_value(uint64_t value);
std::string format_value(double value);
std::string format_value(const std::string& value);

}  // namespace satin::config
