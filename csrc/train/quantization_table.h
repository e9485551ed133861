// The quantization table as people and programs read it.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "quant/registry.h"

namespace satin::train {

/// One line a kind of tensor (layers of equal scheme and shape are one line), with totals and what is left in full
/// precision and why.
std::string quantization_text(const std::vector<quant::TableRow>& table);
/// Every tensor: {"tensors": [{"name", "shape", "method", "bits", "group_size", "effective_bits", "reason"}]}.
nlohmann::json quantization_json(const std::vector<quant::TableRow>& table);

}  // namespace satin::train
