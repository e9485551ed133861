// The parts of the page, each the HTML of one concept; what they draw is added to `charts`.
#pragma once
#include <string>

#include "report/chart.h"
#include "report/side_by_side.h"

namespace satin::report {

/// summary.json of each run, and the last evaluation of each text during training.
std::string results_section(const Runs& runs);
/// satin eval's smoothness of student and teacher, by text.
std::string smoothness_section(const Runs& runs, Charts& charts);
/// satin eval's robustness, by text.
std::string robustness_section(const Runs& runs, Charts& charts);
/// satin allocate's lists, costs and losses.
std::string allocation_section(const Runs& runs, Charts& charts);
/// satin eval's other tasks, as a table.
std::string other_tasks_section(const Runs& runs);
/// Curves of all metrics over the steps, and their last values.
std::string training_section(const Runs& runs, Charts& charts);
/// Curves of the quantizers' means, and each layer at the last entry.
std::string quantizer_section(const Runs& runs, Charts& charts);
/// What differs between the runs' configurations.
std::string configuration_section(const Runs& runs);
/// Tables of the quantized tensors, and the configurations as they are.
std::string details_section(const Runs& runs);

}  // namespace satin::report
