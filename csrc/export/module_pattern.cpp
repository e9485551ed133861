#include "export/module_pattern.h"

#include <pcre2.h>

#include <memory>

#include "core/error.h"

namespace satin::exporting {
namespace {

[[noreturn]] void refuse(const std::string& pattern, int error) {
  PCRE2_UCHAR text[256] = "unknown error";
  pcre2_get_error_message(error, text, sizeof text);
  throw UserError(cat("quantization_config: the pattern '", pattern.substr(0, 200),
                      "' cannot be matched with module names: ", reinterpret_cast<const char*>(text)));
}

}  // namespace

bool matches_from_start(const std::string& pattern, const std::string& name) {
  int error = 0;
  PCRE2_SIZE position = 0;
  const std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_ANCHORED, &error, &position,
                    nullptr),
      pcre2_code_free);
  if (!code) refuse(pattern, error);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> limits(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(limits.get(), 100'000);
  pcre2_set_heap_limit(limits.get(), 20'000);  // KiB
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> found(pcre2_match_data_create(1, nullptr),
                                                                                  pcre2_match_data_free);
  const int count =
      pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0, found.get(), limits.get());
  if (count < 0 && count != PCRE2_ERROR_NOMATCH) refuse(pattern, count);
  return count >= 0;
}

}  // namespace satin::exporting
