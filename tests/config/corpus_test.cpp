// Replays the fuzzer's corpus: every file loads or gives a UserError, and what loads survives a round trip.
#include <cstdint>

#include "config_support.h"
#include "support/test_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace satin::config::test {
namespace {

TEST(Corpus, NothingCrashes) {
  int num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(satin::test::source_dir() / "tests/config/corpus")) {
    const std::string bytes = satin::test::read_file(entry.path());
    SCOPED_TRACE(entry.path());
    EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()), 0);
    ++num_files;
  }
  EXPECT_GE(num_files, 10);
}

}  // namespace
}  // namespace satin::config::test
