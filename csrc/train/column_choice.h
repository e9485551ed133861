// Other bits for some columns of linear layers, after their decoder layers have theirs: what csrc/allocate/columns.h
// decides by, measured.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "allocate/columns.h"
#include "train/measured_layers.h"

namespace satin::train {

/// By module. Errors are those of its outputs, tr(D H D^T) / tr(W H W^T), D what rounding to nearest does to W.
using ColumnChoices = std::map<std::string, allocate::ColumnChoice>;

/// H = E[x x^T] of the full-precision model's inputs on the general text, block by block. `bits`: of each decoder
/// layer. Linears whose layer has 2 or 8 bits, or whose inputs are not two or more times config::kBitColumns, are left
/// out, which is logged. Throws InterruptedError, and UserError where H has no inverse.
ColumnChoices choose_columns(const config::Config& config, const MeasuredLayers& model, const std::vector<int>& bits);

/// Those whose columns differ in bits.
ColumnBits changed_columns(const ColumnChoices& choices);
nlohmann::ordered_json choices_json(const ColumnChoices& choices);

}  // namespace satin::train
