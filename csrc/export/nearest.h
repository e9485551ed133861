// The nearest model that a format holds, for those who ask for one (--lossy), and what it costs. What the format holds
// stays as it is; other layers get the smallest grid of the format that has their levels, or, when there is none, its
// largest, onto which their values are rounded anew.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "export/format.h"

namespace satin::exporting {

/// The same layers with schemes that the format holds together; nothing when there are none (OneBit, say).
std::optional<std::vector<QuantizedLayer>> nearest_layers(const Format& format,
                                                          const std::vector<QuantizedLayer>& layers,
                                                          at::ScalarType dtype);

/// A weight on the grid of `scheme`, whose groups divide the weight's: its levels where the grid has them (scales
/// rounded to the scheme's dtype, and values to the nearest level of these), else rounded to nearest.
quant::QuantizedWeight convert(const quant::QuantizedWeight& weight, const quant::Scheme& scheme);

/// The model in nearest_layers' schemes; scales that the format refuses become float16. Its tensors ask `model`'s,
/// which may go; `format` must stay. Throws UserError when there is none.
ShippedModel nearest_model(const ShippedModel& model, const Format& format);

/// Of the kinds that changed, compared value by value.
std::vector<Damage> damage(const ShippedModel& trained, const ShippedModel& nearest, const Progress& progress);

}  // namespace satin::exporting
