// Verdicts on made-up heartbeats and clocks.
#include "dist/judge.h"

#include "support/test_support.h"

namespace satin::dist {
namespace {

Beat beat(int64_t count, int64_t step, std::vector<GroupProgress> groups, Beat::State state = Beat::State::kRunning) {
  return {count, step, state, "host", std::move(groups)};
}

bool names(const std::optional<std::string>& verdict, const std::string& name, const std::string& why) {
  return verdict && verdict->starts_with(name) && verdict->find(why) != std::string::npos;
}

TEST(Beat, SurvivesItsText) {
  const Beat there = Beat::from_text(beat(3, 17, {{5, true}, {0, false}}, Beat::State::kPaused).to_text());
  EXPECT_EQ(there.count, 3);
  EXPECT_EQ(there.step, 17);
  EXPECT_EQ(there.host, "host");
  EXPECT_EQ(there.state, Beat::State::kPaused);
  ASSERT_EQ(there.groups.size(), 2u);
  EXPECT_EQ(there.groups[0].entered, 5);
  EXPECT_TRUE(there.groups[0].outstanding);
}

TEST(Judge, NamesWhoIsSilent) {
  Judge judge(0, 3);
  for (int t = 0; t <= 5; ++t) EXPECT_FALSE(judge.look({beat(t, t, {}), beat(t, t, {}), beat(t, t, {})}, t, 3, 100));
  EXPECT_FALSE(judge.look({beat(6, 6, {}), beat(6, 6, {}), beat(5, 5, {})}, 7, 3, 100));
  EXPECT_TRUE(names(judge.look({beat(7, 7, {}), beat(7, 7, {}), beat(5, 5, {})}, 8.5, 3, 100),
                    "rank 2 on host at step 5:", "no sign of life for 3.5 s"));
  EXPECT_TRUE(judge.silent_before(3, 0)->starts_with("rank 2 on host"));
  EXPECT_FALSE(judge.silent_before(3, 2));
}

TEST(Judge, LetsThoseGoThatSaidGoodbye) {
  Judge judge(0, 2);
  for (int t = 0; t < 50; ++t)
    EXPECT_FALSE(judge.look({beat(t, t, {{t, false}}), beat(1, 1, {{1, false}}, Beat::State::kDone)}, t, 3, 3));
}

TEST(Judge, NamesWhoDoesNotEnter) {
  // Ranks 0 and 2 wait in the tenth collective of the second group; rank 1 computes, or hangs.
  Judge judge(0, 3);
  const auto look = [&](int t, Beat::State state) {
    const std::vector<GroupProgress> waits = {{4, false}, {10, true}};
    return judge.look({beat(t, 8, waits), beat(t, 8, {{4, false}, {9, false}}, state), beat(t, 8, waits)}, t, 3, 5);
  };
  for (int t = 0; t < 5; ++t) EXPECT_FALSE(look(t, Beat::State::kRunning));
  for (int t = 5; t < 50; ++t) EXPECT_FALSE(look(t, Beat::State::kPaused));  // it works alone, and says so
  for (int t = 50; t < 54; ++t) EXPECT_FALSE(look(t, Beat::State::kRunning));
  EXPECT_TRUE(
      names(look(55, Beat::State::kRunning), "rank 1 on host at step 8:", "has not entered a collective that rank 0"));
}

TEST(Judge, LongStepsAreNoHang) {
  Judge judge(0, 2);
  for (int t = 0; t < 100; ++t) EXPECT_FALSE(judge.look({beat(t, 1, {{7, false}}), beat(t, 1, {{7, false}})}, t, 3, 5));
}

TEST(Judge, SaysWhenACollectiveDoesNotEnd) {
  Judge judge(0, 2);
  for (int t = 0; t < 5; ++t) EXPECT_FALSE(judge.look({beat(t, 1, {{7, true}}), beat(t, 1, {{7, true}})}, t, 3, 5));
  EXPECT_TRUE(names(judge.look({beat(6, 1, {{7, true}}), beat(6, 1, {{7, true}})}, 6, 3, 5), "rank 0", "does not end"));
}

}  // namespace
}  // namespace satin::dist
