// Allocations of bits in words: the list that a configuration reads, and the table on the screen.
#pragma once
#include <string>
#include <vector>

#include "train/measured_layers.h"

namespace satin::train {

/// YAML for quantization.overrides_from: a rule a decoder layer, and one for each linear whose columns differ in bits.
std::string override_list(const std::vector<int>& bits_of_layers, const ColumnBits& columns = {});

std::string allocation_header();
/// A line of the table; `answers` NaN: not measured.
std::string allocation_line(const std::string& name, double mean_bits, double effective_bits, double perplexity,
                            double answers, const std::vector<int>& bits);

}  // namespace satin::train
