// A test executable that skipped everything must not look like one that passed.
#include <gtest/gtest.h>

#include <cstdio>

namespace satin::test {
namespace {

class SkipListener : public testing::EmptyTestEventListener {
  void OnTestProgramEnd(const testing::UnitTest& unit_test) override {
    const int ran = unit_test.test_to_run_count() - unit_test.skipped_test_count();
    if (unit_test.test_to_run_count() > 0 && ran == 0) std::printf("ALL TESTS SKIPPED\n");  // ctest reports "Skipped"
  }
};

const bool kRegistered = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new SkipListener);
  return true;
}();

}  // namespace
}  // namespace satin::test
