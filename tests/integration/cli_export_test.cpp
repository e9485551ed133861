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

TEST_F(CliExport, LossyIsAskedForAndSaysWhatItCosts) {
  const std::string quantize = "quantize " + (quick / "qat.yaml").string() +
                               " quantization.default.method=minmax_symmetric quantization.default.bits=8 "
                               "'export.formats=[gptq]' train.device=cpu eval.limit=2 train.output_dir=" +
                               (dir / "run").string();
  expect(satin(quantize), 0, {"export.formats: gptq, when training has ended: every scale must be a float16 value"});
  const std::string card = test::read_file(dir / "run/export/gptq/README.md");
  EXPECT_NE(card.find("# run, step-0 (gptq)"), std::string::npos) << card;
  EXPECT_NE(card.find("## Perplexity"), std::string::npos) << card;
  const std::string awq = "export --checkpoint " + (dir / "run/checkpoints/step-0").string() +
                          " --format awq --output " + (dir / "awq").string() + " --data " +
                          (quick / "text/valid.jsonl").string();
  expect(satin(awq), 2,
         {"exactly: hf, compressed-tensors, gptq", "awq would hold model.layers.0.mlp.down_proj.weight as lsq 4 bits",
          "--lossy"});
  expect(satin(awq + " --lossy"), 0,
         {"relative RMS", "down_proj", "4 of 4", "perplexity before", "perplexity after", "converted to"});
  EXPECT_NE(test::read_file(dir / "awq/README.md").find("**lossy**"), std::string::npos);
  const std::string gptq = "export --lossy --checkpoint " + (dir / "run/checkpoints/step-0").string() +
                           " --format gptq --output " + (dir / "gptq").string();
  expect(satin(gptq), 0, {"nothing was lost", "every code and scale equal"});

  SATIN_NEEDS_PYTHON("transformers");
  SATIN_NEEDS_PYTHON("compressed_tensors");
  std::string directories;
  for (const std::string name : {"hf", "compressed-tensors"}) {
    directories += " " + (dir / name).string();
    expect(satin("export --checkpoint " + (dir / "run/checkpoints/step-0").string() + " --format " + name +
                 " --output " + (dir / name).string()),
           0, {});
  }
  if (test::has_python_module("gptqmodel")) directories += " " + (dir / "gptq").string() + " " + (dir / "awq").string();
  const auto ran = test::run_python("export/run_model_card.py" + directories);
  EXPECT_EQ(ran.exit_code, 0) << ran.output;
}

}  // namespace satin
