#include <ATen/Functions.h>

#include "core/error.h"
#include "io/safetensors.h"
#include "support/test_support.h"

namespace satin::io {
using test::TempDir;

namespace {

const char* kIndex = "model.safetensors.index.json";

std::string message(const std::filesystem::path& directory) {
  try {
    TensorDirectory tensors(directory);
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST(TensorDirectory, ReadsShardsOfTransformers) {
  SATIN_NEEDS_PYTHON("transformers");
  TempDir dir;
  const auto result = test::run_python("io/sharded_model.py " + dir.path().string());
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const TensorDirectory sharded(dir / "sharded"), single(dir / "single");
  EXPECT_GT(std::distance(std::filesystem::directory_iterator(dir / "sharded"), {}), 4) << "expected several shards";
  ASSERT_EQ(sharded.names(), single.names());
  ASSERT_GT(single.names().size(), 10u);
  for (const auto& name : single.names()) {
    EXPECT_TRUE(at::equal(sharded.tensor(name), single.tensor(name))) << name;
    EXPECT_EQ(sharded.info(name).shape, single.tensor(name).sizes().vec());
  }
}

TEST(TensorDirectory, NamesEveryDisagreement) {
  TempDir dir;
  write_safetensors(dir / "1.safetensors",
                    {{"a", at::ones({1})}, {"unlisted", at::ones({1})}, {"moved", at::ones({1})}});
  write_safetensors(dir / "2.safetensors", {{"b", at::ones({1})}});
  test::write_file(dir / kIndex, R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors","lost":"2.safetensors",
    "moved":"2.safetensors","gone":"3.safetensors"}})");
  const std::string text = message(dir.path());
  test::expect_contains(text, "tensor unlisted is in 1.safetensors but not in the index");
  test::expect_contains(text, "tensor moved is in 1.safetensors, the index says 2.safetensors");
  test::expect_contains(text, "tensor lost is in the index but not in 2.safetensors");
  test::expect_contains(text, "shard 3.safetensors does not exist");
}

TEST(TensorDirectory, ATensorInTwoShardsIsRefused) {
  TempDir dir;
  write_safetensors(dir / "1.safetensors", {{"a", at::ones({1})}});
  write_safetensors(dir / "2.safetensors", {{"a", at::zeros({1})}, {"b", at::zeros({1})}});
  test::write_file(dir / kIndex, R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  test::expect_contains(message(dir.path()), "tensor a is in 2.safetensors, the index says 1.safetensors");
}

TEST(TensorDirectory, ShardsStayInTheirDirectory) {
  TempDir dir;
  for (const char* shard : {"../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", "a\\\\b", "a\\u0000b"}) {
    test::write_file(dir / kIndex, std::string(R"({"weight_map":{"a":")") + shard + "\"}}");
    test::expect_contains(message(dir.path()), "expected a plain file name for a");
  }
}

TEST(TensorDirectory, RefusesBrokenIndexes) {
  TempDir dir;
  const auto with_index = [&](const std::string& json) {
    test::write_file(dir / kIndex, json);
    return message(dir.path());
  };
  test::expect_contains(with_index("{"), "not valid JSON");
  test::expect_contains(with_index("[]"), "expected a JSON object");
  test::expect_contains(with_index("{}"), "weight_map");
  test::expect_contains(with_index(R"({"weight_map":[]})"), "weight_map");
  test::expect_contains(with_index(R"({"weight_map":{"a":3}})"), "expected a file name for a");
  test::expect_contains(with_index(R"({"weight_map":{"a":"x","a":"y"}})"), "found twice");
  test::expect_contains(with_index(std::string(100'000, '[')), kIndex);
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  test::expect_contains(with_index(deep), "nested more than");
}

TEST(TensorDirectory, SaysWhatItLooksFor) {
  TempDir dir;
  test::expect_contains(message(dir.path()), "expected model.safetensors or model.safetensors.index.json");
  test::expect_contains(message(dir / "absent"), "expected a model directory");
  test::write_file(dir / "pytorch_model.bin", "");
  test::expect_contains(message(dir.path()), "pytorch_model.bin is not read");
}

}  // namespace satin::io
