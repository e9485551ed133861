// Files that the build puts into the program (see embed.cmake).
#pragma once
#include <string_view>

namespace satin::report::assets {

extern const std::string_view kReportCss, kReportJs;
/// The plotting library dygraphs, from the system's package; empty when the build did not find it.
extern const std::string_view kDygraphCss, kDygraphJs;

}  // namespace satin::report::assets
