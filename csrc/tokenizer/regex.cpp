#include "tokenizer/regex.h"

#include <pcre2.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tokenizer/json_node.h"
#include "tokenizer/utf8.h"

namespace satin::tokenizer {
namespace {

constexpr uint32_t kMatchLimit = 20'000'000;
constexpr uint32_t kHeapLimitKib = 1 << 20;
constexpr size_t kMaxJitStackBytes = 32 << 20;

std::string message_of(int code) {
  PCRE2_UCHAR text[160];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

/// What one thread needs to match.
struct MatchState {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, kMaxJitStackBytes, nullptr);
  MatchState() {
    SATIN_CHECK(data && context);
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchState() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

}  // namespace

Regex::Regex(const std::string& pattern, unsigned options, const std::string& shown, const JsonNode& where)
    : shown_(shown) {
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  SATIN_CHECK(context);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | options,
                                   &error, &error_offset, context.get());
  if (!code) where.fail(cat("the pattern '", shown, "' is malformed: ", message_of(error)));
  code_ = std::shared_ptr<const void>(
      code, [](const void* held) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(held))); });
  jit_ = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
}

Regex Regex::compile(const std::string& pattern, const JsonNode& where) {
  return Regex(translate_oniguruma(pattern, where), PCRE2_UCP | PCRE2_MULTILINE, pattern, where);
}

Regex Regex::literal(const std::string& text, const JsonNode& where) { return Regex(text, PCRE2_LITERAL, text, where); }

Regex Regex::parse(const JsonNode& pattern) {
  if (const auto regex = pattern.find("Regex")) return compile(regex->string(), *regex);
  if (const auto text = pattern.find("String")) return literal(text->string(), *text);
  pattern.unsupported("this pattern", "Regex, String");
}

bool Regex::search(std::string_view text, size_t start, Range& match) const {
  thread_local MatchState state;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int found = PCRE2_ERROR_JIT_STACKLIMIT;
  if (jit_) found = pcre2_jit_match(code, subject, text.size(), start, 0, state.data, state.context);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter keeps its backtracking points on the heap
    found =
        pcre2_match(code, subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, state.data, state.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) {
    throw UserError(cat("the tokenizer's pattern '", shown_, "' cannot be matched against a text of ", text.size(),
                        " bytes: ", message_of(found)));
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.data);
  match = {ends[0], ends[1]};
  return match.begin <= match.end;  // \K is refused, but look-behind must not surprise us
}

void Regex::for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& found) const {
  size_t start = 0;
  size_t last_end = std::string_view::npos;
  Range match;
  while (start <= text.size() && search(text, start, match)) {
    if (match.begin == match.end && match.end == last_end) {  // an empty match right after a match does not count
      start += start < text.size() ? char_length(text[start]) : 1;
      continue;
    }
    start = last_end = match.end;
    found(match.begin, match.end);
  }
}

}  // namespace satin::tokenizer
