// Shared by all tests: scratch folders, the real teacher when it is there, and Python as an independent oracle.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

namespace satin::test {

/// A fresh folder that is removed with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// The repository's root.
std::filesystem::path source_dir();
/// SATIN_SHARED or ../shared beside the repository; empty when absent (such tests skip and say so).
std::filesystem::path shared_dir();

struct ProcessResult {
  int exit_code;       ///< 128 + signal when killed by one
  std::string output;  ///< stdout and stderr together
};
/// Runs a shell command and waits.
ProcessResult run(const std::string& command);

/// Runs tests/<script> with the private environment's Python; on a missing module prints why and returns exit code 77.
ProcessResult run_python(const std::string& script_and_arguments);
/// Whether the environment's Python can import `module`.
bool has_python_module(const std::string& module);

void write_file(const std::filesystem::path& path, const std::string& bytes);
std::string read_file(const std::filesystem::path& path);

void sleep_s(double seconds);
void expect_contains(const std::string& text, const std::string& part);

}  // namespace satin::test

/// Skips, loudly, a test that needs the Python client `module`.
#define SATIN_NEEDS_PYTHON(module)               \
  if (!::satin::test::has_python_module(module)) \
  GTEST_SKIP() << "needs the Python package " << module << " (scripts/setup --tests)"

/// Skips, loudly, a test that needs ../shared.
#define SATIN_NEEDS_SHARED() \
  if (::satin::test::shared_dir().empty()) GTEST_SKIP() << "needs ../shared (or SATIN_SHARED) with models/books-29m"
