#include "core/error.h"

#include <cstdio>

namespace satin {

std::string fixed(double value, int decimals) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", decimals, value);
  return buffer;
}

namespace detail {
void fail_check(const char* file, int line, const char* condition, const std::string& message) {
  throw InternalError(
      cat("check failed: ", condition, message.empty() ? "" : ": ", message, " (", file, ":", line, ")"));
}
}  // namespace detail

}  // namespace satin
