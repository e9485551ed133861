#include "core/error.h"

#include <gtest/gtest.h>

namespace satin {

TEST(Error, ChecksPrintBothValues) {
  try {
    SATIN_CHECK_EQ(1 + 1, 3, "in a test");
    FAIL();
  } catch (const InternalError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("2 versus 3"), std::string::npos) << text;
    EXPECT_NE(text.find("in a test"), std::string::npos) << text;
    EXPECT_NE(text.find("error_test.cpp"), std::string::npos) << text;
  }
}

TEST(Error, FixedRounds) { EXPECT_EQ(fixed(2.0 / 3, 3), "0.667"); }

}  // namespace satin
