// libFuzzer entry: the first line may be an override ("#! key=value"), the rest is the YAML text. Any text either loads
// or gives a UserError; what loads must survive a round trip. corpus_test.cpp replays the corpus without libFuzzer.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "config/config.h"
#include "core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using satin::config::Job;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> overrides;
  if (text.starts_with("#!")) {
    const size_t end = std::min(text.find('\n'), text.size());
    overrides.emplace_back(text.substr(2, end - 2));
  }
  try {
    const auto config = satin::config::parse(text, "fuzz.yaml", "/", overrides, Job::any);
    if (satin::config::parse(satin::config::dump(config), "dump.yaml", "/", {}, Job::any) != config) std::abort();
  } catch (const satin::UserError&) {
  }
  return 0;
}
