// What a format cannot hold, and the words for it: which formats do, and what would be the nearest in this one.
#pragma once
#include <string>
#include <vector>

#include "export/format.h"

namespace satin::exporting {

/// Values that a format does not hold, seen when they were made.
struct ValueRefusal {
  std::string reason;
};

std::vector<QuantizedLayer> layers_of(const ShippedModel& model);

/// Empty, or why the format does not hold a model of these layers, whatever their values.
std::string first_refusal(const Format& format, const std::vector<QuantizedLayer>& layers, at::ScalarType dtype);

/// The formats that hold all of it; with the model, all of its values too.
std::vector<const Format*> exact_formats(const std::vector<QuantizedLayer>& layers, at::ScalarType dtype,
                                         const ShippedModel* model);

/// Throws UserError: the reason, the formats that hold these layers exactly, and schemes which this format would hold.
[[noreturn]] void refuse(const Format& format, const std::string& reason, const std::vector<const Format*>& exact,
                         const std::vector<QuantizedLayer>& layers, at::ScalarType dtype);

}  // namespace satin::exporting
