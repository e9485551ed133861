// Inputs that the fuzzer found interesting stay as a regression test.
#include "support/test_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);  // token files
extern "C" int fuzz_teacher_cache(const uint8_t* data, size_t size);      // its name here, see CMakeLists.txt

namespace satin::data {
namespace {

int replay(const char* corpus, int (*check)(const uint8_t*, size_t)) {
  int num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::source_dir() / "tests/data/corpus" / corpus)) {
    const std::string bytes = test::read_file(entry.path());
    check(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    ++num_files;
  }
  return num_files;
}

TEST(FuzzReplay, TokenFileCorpusNeverCrashes) { EXPECT_GT(replay("token_file", LLVMFuzzerTestOneInput), 10); }
TEST(FuzzReplay, TeacherCacheCorpusNeverCrashes) { EXPECT_GT(replay("teacher_cache", fuzz_teacher_cache), 10); }

}  // namespace
}  // namespace satin::data
