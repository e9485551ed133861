// Texts in, configurations or messages out.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config/config.h"
#include "core/error.h"

namespace satin::config::test {

using Overrides = std::vector<std::string>;

inline Config read(const std::string& text, const Overrides& overrides = {}, Job job = Job::any) {
  return parse(text, "c.yaml", "/folder", overrides, job);
}

/// The message of the UserError that the text must give; "" when it gives none.
inline std::string problems(const std::string& text, const Overrides& overrides = {}, Job job = Job::any) {
  try {
    read(text, overrides, job);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

/// Lines of a message after its heading.
inline std::vector<std::string> lines(const std::string& message) {
  std::vector<std::string> found;
  for (size_t begin = message.find('\n'); begin != message.npos;) {
    const size_t end = message.find('\n', begin + 1);
    found.push_back(message.substr(begin + 3, end - begin - 3));
    begin = end;
  }
  return found;
}

inline const std::string kModel = "model: {path: m}\n";  ///< the least configuration

}  // namespace satin::config::test
