// A small checkpoint for the tests: tensor "w" is filled with the step.
#pragma once
#include <ATen/Functions.h>

#include "io/checkpoint.h"
#include "support/test_support.h"

namespace satin::io {

inline CheckpointContents checkpoint_contents(const std::filesystem::path& scratch, int64_t step, int64_t size = 1000) {
  test::write_file(scratch / "teacher/config.json", "{}");
  test::write_file(scratch / "teacher/tokenizer.json", "{\"a\": 1}");
  CheckpointContents contents;
  contents.manifest.step = step;
  contents.manifest.tokens = step * 100;
  contents.model = {{"w", at::full({size}, static_cast<double>(step), at::kFloat)}};
  contents.optimizer = {{"w.m", at::full({size}, static_cast<double>(step), at::kFloat)}};
  contents.config_yaml = "train:\n  seed: 1\n";
  contents.model_files = scratch / "teacher";
  return contents;
}

}  // namespace satin::io
