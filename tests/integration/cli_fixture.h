// The program as a user meets it: what the tests of commands share.
#pragma once
#include <cstdlib>

#include "support/test_support.h"

namespace satin {

namespace fs = std::filesystem;
using test::ProcessResult;

class Cli : public testing::Test {
 protected:
  test::TempDir dir;
  fs::path quick = test::source_dir() / "configs/quickstart";

  ProcessResult satin(const std::string& arguments) {
    const char* binary = std::getenv("SATIN_BINARY");
    return test::run(std::string(binary ? binary : (test::source_dir() / "build/release/satin").string()) + " " +
                     arguments);
  }
  /// A short run of the shipped recipe into dir/<name>.
  std::string tiny(const std::string& name, const std::string& more = "") {
    return "train " + (quick / "qat-smoothness.yaml").string() + " train.output_dir=" + (dir / name).string() +
           " train.device=cpu train.max_steps=6 train.sequence_length=64 train.micro_batch_size=4 "
           "logging.every_n_steps=1 eval.limit=4"
           " data.cache_dir=" +
           (dir / "cache").string() + " " + more;
  }
  void expect(const ProcessResult& result, int code, const std::vector<std::string>& texts) {
    EXPECT_EQ(result.exit_code, code) << result.output;
    for (const auto& text : texts)
      EXPECT_NE(result.output.find(text), std::string::npos) << text << "\n--- in ---\n" << result.output;
  }
  std::string weights(const std::string& run) {
    return test::read_file(dir / run / "checkpoints/step-6/model.safetensors");
  }
};

}  // namespace satin
