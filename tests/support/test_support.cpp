#include "support/test_support.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace satin::test {
namespace fs = std::filesystem;

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "satin-test-XXXXXX").string();
  if (!mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::permissions(path_, fs::perms::owner_all, fs::perm_options::add, ignored);
  fs::remove_all(path_, ignored);
}

fs::path source_dir() {
  if (const char* dir = std::getenv("SATIN_SOURCE_DIR")) return dir;
  return fs::path(__FILE__).parent_path().parent_path().parent_path();
}

fs::path shared_dir() {
  fs::path dir = source_dir().parent_path() / "shared";
  if (const char* set = std::getenv("SATIN_SHARED")) dir = set;
  return fs::exists(dir / "models/books-29m/model.safetensors") ? dir : fs::path();
}

ProcessResult run(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (!pipe) throw std::runtime_error("popen failed");
  ProcessResult result{0, {}};
  std::array<char, 4096> buffer;
  while (size_t n = fread(buffer.data(), 1, buffer.size(), pipe)) result.output.append(buffer.data(), n);
  const int status = pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

namespace {
std::string python() {
  if (const char* set = std::getenv("SATIN_PYTHON")) return set;
  return (source_dir() / ".venv/bin/python").string();
}
}  // namespace

bool has_python_module(const std::string& module) {
  static std::map<std::string, bool> known;
  auto [it, fresh] = known.try_emplace(module, false);
  if (fresh)
    it->second =
        run(python() + " -c 'import importlib.util as u, sys; sys.exit(u.find_spec(\"" + module + "\") is None)'")
            .exit_code == 0;
  return it->second;
}

ProcessResult run_python(const std::string& script_and_arguments) {
  return run("TORCHDYNAMO_DISABLE=1 HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error " + python() + " " +
             (source_dir() / "tests").string() + "/" + script_and_arguments);
}

void write_file(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string read_file(const fs::path& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

void sleep_s(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks: " << part;
}

}  // namespace satin::test
