#include "core/line_difference.h"

#include <gtest/gtest.h>

namespace satin {
namespace {

using Line = std::optional<std::string>;

void expect(const std::string& left, const std::string& right, size_t number, const Line& a, const Line& b) {
  const LineDifference found = first_line_difference(left, right);
  EXPECT_EQ(found.number, number);
  EXPECT_EQ(found.left, a);
  EXPECT_EQ(found.right, b);
}

TEST(LineDifference, IsOfTheFirstLineThatDiffers) {
  expect("a\nb\nc\n", "a\nx\ny\n", 2, "b", "x");
  expect("one", "other", 1, "one", "other");
  expect("a\n\n", "a\nb\n", 2, "", "b");
}

TEST(LineDifference, ATextMayEndBefore) {
  expect("a\n", "a\nb\n", 2, std::nullopt, "b");
  expect("a\nb", "a", 2, "b", std::nullopt);
  expect("", "a", 1, std::nullopt, "a");
}

TEST(LineDifference, OfTheSameLinesTheOneAfter) {
  expect("a\nb", "a\nb\n", 3, std::nullopt, std::nullopt);
  expect("", "", 1, std::nullopt, std::nullopt);
}

}  // namespace
}  // namespace satin
