#include <filesystem>

#include "support/test_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace satin {

// What the fuzzer started from and what it once broke.
TEST(TokenizerCorpus, NothingCrashes) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SATIN_TOKENIZER_CORPUS)) {
    SCOPED_TRACE(entry.path().string());
    const std::string bytes = test::read_file(entry.path());
    EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()), 0);
    ++count;
  }
  EXPECT_GT(count, 5);
}

}  // namespace satin
