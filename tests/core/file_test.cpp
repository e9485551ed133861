#include "core/file.h"

#include <cstring>

#include "core/error.h"
#include "support/test_support.h"

namespace satin {
using test::TempDir;

TEST(File, AtomicWriteReplacesAndMapsBack) {
  TempDir dir;
  write_file_atomically(dir / "a", "one");
  write_file_atomically(dir / "a", "two!");
  MappedFile map(dir / "a");
  ASSERT_EQ(map.size(), 4u);
  EXPECT_EQ(std::memcmp(map.bytes().data(), "two!", 4), 0);
  EXPECT_FALSE(std::filesystem::exists(dir / "a.partial"));
}

TEST(File, FailedWriteLeavesTheOldFile) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP();
  TempDir dir;
  std::filesystem::create_symlink("/dev/full", dir / "b.partial");
  test::write_file(dir / "b", "old");
  EXPECT_THROW(write_file_atomically(dir / "b", "new"), UserError);
  EXPECT_EQ(test::read_file(dir / "b"), "old");
}

TEST(File, DirectoryAppearsWholeOrNotAtAll) {
  TempDir dir;
  {
    AtomicDirectory abandoned(dir / "run");
    test::write_file(abandoned.path() / "x", "1");
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  for (const char* content : {"1", "2"}) {
    AtomicDirectory made((dir / "run").string() + "/");
    test::write_file(made.path() / "x", content);
    made.commit();
    EXPECT_EQ(test::read_file(dir / "run/x"), content);
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

TEST(File, MissingFileIsAUserError) { EXPECT_THROW(MappedFile("/nonexistent/file"), UserError); }

}  // namespace satin
