// Inputs that the fuzzer found interesting stay as a regression test.
#include "support/test_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace satin::data {

TEST(FuzzReplay, TokenFileCorpusNeverCrashes) {
  int num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::source_dir() / "tests/data/corpus/token_file")) {
    const std::string bytes = test::read_file(entry.path());
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    ++num_files;
  }
  EXPECT_GT(num_files, 10);
}

}  // namespace satin::data
