// satin export on a machine that fails: what was there stays, and the exit code is the user's to act on.
#include "integration/cli_fixture.h"

namespace satin {
namespace {

class CliExport : public Cli {
 protected:
  /// A script that exports the shipped teacher (2 MB) to place/out, once, and again with --force after `limit`; it
  /// prints what is there after each.
  std::string export_twice(const fs::path& place, const std::string& limit) {
    const char* binary = std::getenv("SATIN_BINARY");
    const std::string command = (binary ? binary : (test::source_dir() / "build/release/satin").string()) +
                                " export --format hf --checkpoint " + (quick / "teacher").string() + " --output " +
                                (place / "out").string();
    const std::string list = "(cd " + place.string() + " && ls -A && cat out/* | sha256sum)\n";
    test::write_file(dir / "twice.sh", command + " >/dev/null 2>&1\n" + list + limit + "\n" + command +
                                           " --force\necho exit $?\n" + list);
    return (dir / "twice.sh").string();
  }
  void expect_intact(const std::string& text, const std::string& reason) {
    const std::string before = text.substr(0, text.find("satin: "));
    EXPECT_EQ(before.substr(0, 4), "out\n") << text;
    EXPECT_NE(text.find(reason), std::string::npos) << text;
    const size_t end = text.find("exit 2\n");
    ASSERT_NE(end, std::string::npos) << text;
    EXPECT_EQ(text.substr(end + 7), before) << text;  // the same files of the same content, nothing beside them
  }
};

}  // namespace

TEST_F(CliExport, AFileLimitIsAUserErrorAndLeavesTheOldExport) {
  const fs::path place = dir / "disk";
  fs::create_directory(place);
  expect_intact(test::run("sh " + export_twice(place, "ulimit -f 1000")).output, "File too large");
}

TEST_F(CliExport, AFullDiskIsAUserErrorAndLeavesTheOldExport) {
  const fs::path place = dir / "disk";
  fs::create_directory(place);
  const std::string mount = "mount -t tmpfs -o size=3500k none " + place.string();  // room for one export
  if (test::run("unshare -rm " + mount).exit_code != 0)
    GTEST_SKIP() << "needs a tmpfs in a namespace of its own (unshare -rm)";
  const std::string script = export_twice(place, "");
  expect_intact(test::run("unshare -rm sh -c '" + mount + " && sh " + script + "'").output, "No space left on device");
}

}  // namespace satin
