// What satin allocate found, as its run directory has it.
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace satin::report {

/// Bits of the layers, and the model's losses with all of them; NaN where nothing was measured.
struct AllocationResult {
  std::string name;
  std::vector<double> bits;
  double effective_bits = 0, perplexity = 0, answers = 0;
};

struct AllocationData {
  AllocationResult full_precision;
  std::vector<AllocationResult> lists;                             ///< the allocation and its controls
  std::vector<AllocationResult> frontier;                          ///< allocations of growing budgets
  std::vector<std::pair<std::string, std::vector<double>>> costs;  ///< by number of bits: of each layer
  std::vector<std::pair<std::string, double>> kendall_tau;         ///< by number of bits
  bool empty() const { return lists.empty(); }
};

/// allocation.json. Throws UserError when it is not what satin allocate writes.
AllocationData read_allocation(const std::filesystem::path& path);

}  // namespace satin::report
