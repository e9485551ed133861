// Errors, by who can act on them, and the checks that throw them.
//   UserError        a person can fix it (exit 2): say what was expected, what was found, where, and what to do
//   DivergedError    training produced a NaN or infinity (exit 4)
//   InterruptedError a signal asked to stop and everything was saved (exit 3)
//   PeerError        another process of the job is lost (exit 1)
//   InternalError    a bug in Satin (exit 1)
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace satin {

struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct DivergedError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct InterruptedError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct PeerError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct InternalError : std::logic_error {
  using std::logic_error::logic_error;
};

/// Concatenates anything that streams: cat("expected ", 3, ", found ", x).
template <class... Args>
std::string cat(const Args&... args) {
  std::ostringstream out;
  (void)(out << ... << args);
  return out.str();
}

/// Fixed-point text of a number: fixed(3.14159, 2) == "3.14".
std::string fixed(double value, int decimals);

namespace detail {
[[noreturn]] void fail_check(const char* file, int line, const char* condition, const std::string& message);
}  // namespace detail

}  // namespace satin

/// Throws InternalError with the condition, the place and the message (streamed from the further arguments).
#define SATIN_CHECK(condition, ...)                                                                           \
  do {                                                                                                        \
    if (!(condition)) ::satin::detail::fail_check(__FILE__, __LINE__, #condition, ::satin::cat(__VA_ARGS__)); \
  } while (false)

/// As SATIN_CHECK(a == b), printing both values.
#define SATIN_CHECK_EQ(a, b, ...)                                                                              \
  do {                                                                                                         \
    const auto& satin_a = (a);                                                                                 \
    const auto& satin_b = (b);                                                                                 \
    if (!(satin_a == satin_b))                                                                                 \
      ::satin::detail::fail_check(__FILE__, __LINE__, #a " == " #b,                                            \
                                  ::satin::cat(satin_a, " versus ", satin_b, " " __VA_OPT__(, ) __VA_ARGS__)); \
  } while (false)
