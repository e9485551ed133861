// README.md of an export: what the files hold and how to load them, as Hugging Face shows it.
#pragma once
#include <string>

#include "export/format.h"

namespace satin::exporting {

/// `trained`: what was exported; `written`: the files, opened.
std::string model_card(const ShippedModel& trained, const ShippedModel& written, const Format& format,
                       const ExportReport& report);

}  // namespace satin::exporting
