#include "io/checkpoint.h"

#include <ATen/Functions.h>

#include "core/error.h"
#include "core/file.h"
#include "io/checkpoint_fixture.h"
#include "io/safetensors.h"
#include "io/scheme_json.h"
#include "support/test_support.h"

namespace satin::io {
using test::TempDir;
namespace fs = std::filesystem;

namespace {

std::string refusal(const fs::path& checkpoint) {
  try {
    verify_checkpoint(checkpoint);
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

}  // namespace

TEST(Checkpoint, RoundTrip) {
  TempDir dir;
  CheckpointContents contents = checkpoint_contents(dir.path(), 7);
  quant::Scheme scheme;
  scheme.method = quant::Method::kSeq;
  scheme.group_size = -1;
  scheme.scale_dtype = quant::Storage::kFloat16;
  scheme.init = quant::Init::kData;
  quant::Scheme columns{quant::Method::kLsqAsymmetric, 4, 64};
  columns.column_bits = {3, 2, 4, 3};
  contents.manifest.schemes = {{"model.layers.0.mlp.up_proj", scheme},
                               {"model.layers.1.mlp.up_proj", {}},
                               {"model.layers.2.mlp.up_proj", columns}};
  contents.manifest.state = {{"sample", 123456789012345}, {"loss", 0.1}};
  const fs::path saved = save_checkpoint(dir / "run", contents, 2);
  EXPECT_EQ(saved, dir / "run/checkpoints/step-7");
  EXPECT_EQ(test::read_file(dir / "run/checkpoints/latest"), "step-7\n");

  const Manifest manifest = verify_checkpoint(saved);
  EXPECT_EQ(manifest.step, 7);
  EXPECT_EQ(manifest.tokens, 700);
  EXPECT_EQ(manifest.state, contents.manifest.state);
  EXPECT_EQ(manifest.schemes, contents.manifest.schemes);
  EXPECT_EQ(names_in(saved), (std::vector<std::string>{"config.json", "config.yaml", "model.safetensors",
                                                       "optimizer.safetensors", "satin.json", "tokenizer.json"}));
  EXPECT_EQ(manifest.files.size(), 5u);
  EXPECT_EQ(test::read_file(saved / "config.yaml"), contents.config_yaml);
  EXPECT_EQ(test::read_file(saved / "tokenizer.json"), test::read_file(contents.model_files / "tokenizer.json"));
  EXPECT_TRUE(at::equal(TensorDirectory(saved).tensor("w"), contents.model[0].tensor));
  EXPECT_TRUE(at::equal(SafetensorsFile(saved / "optimizer.safetensors").tensor("w.m"), contents.optimizer[0].tensor));
}

TEST(Checkpoint, SchemesWithoutColumnBitsAreAsTheyWere) {
  quant::Scheme scheme{quant::Method::kLsq, 4, 64};
  nlohmann::json json = scheme_to_json(scheme);
  EXPECT_FALSE(json.contains("column_bits")) << "what earlier versions wrote and read";
  EXPECT_EQ(scheme_from_json(json, "s"), scheme);
  const auto refusal_of = [&](const nlohmann::json& bits) {
    json["column_bits"] = bits;
    try {
      scheme_from_json(json, "satin.json");
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  test::expect_contains(refusal_of({2, 5}),
                        "satin.json.column_bits: expected 2 to 4 bits, which codes are stored in, found 5");
  test::expect_contains(refusal_of({1, 4}), "found 1");
  test::expect_contains(refusal_of("2 4"), "not a quantization scheme");
  json["method"] = "minmax_symmetric";
  test::expect_contains(refusal_of({2, 4}), "method minmax_symmetric has one number of bits");
}

TEST(Checkpoint, KeepsTheNewestAndRemovesLeftovers) {
  TempDir dir;
  const fs::path checkpoints = dir / "run/checkpoints";
  for (int64_t step : {9, 10, 11}) save_checkpoint(dir / "run", checkpoint_contents(dir.path(), step), 2);
  EXPECT_EQ(names_in(checkpoints), (std::vector<std::string>{"latest", "step-10", "step-11"}));
  for (const char* name : {".step-3.partial", ".step-3.replaced", ".step-3.pruned"})
    test::write_file(checkpoints / name / "model.safetensors", "x");
  test::write_file(checkpoints / "step-final/notes", "a user's own folder");
  test::write_file(checkpoints / "step-007/satin.json", "not a name of ours");
  save_checkpoint(dir / "run", checkpoint_contents(dir.path(), 12), 1);
  EXPECT_EQ(names_in(checkpoints), (std::vector<std::string>{"latest", "step-007", "step-12", "step-final"}));
}

TEST(Checkpoint, SavingAStepAgainReplacesIt) {
  TempDir dir;
  CheckpointContents contents = checkpoint_contents(dir.path(), 5);
  save_checkpoint(dir / "run", contents, 2);
  contents.config_yaml = "another: 1\n";
  const fs::path saved = save_checkpoint(dir / "run", contents, 2);
  EXPECT_EQ(test::read_file(saved / "config.yaml"), "another: 1\n");
  verify_checkpoint(saved);
  EXPECT_EQ(names_in(dir / "run/checkpoints"), (std::vector<std::string>{"latest", "step-5"}));
}

TEST(Checkpoint, RestartingFromAnOlderOneKeepsTheNewSteps) {
  TempDir dir;
  for (int64_t step : {100, 200}) save_checkpoint(dir / "run", checkpoint_contents(dir.path(), step), 2);
  const fs::path saved = save_checkpoint(dir / "run", checkpoint_contents(dir.path(), 110), 2);
  EXPECT_EQ(latest_checkpoint(dir / "run"), saved) << "the newest written, not the highest step";
  EXPECT_TRUE(is_checkpoint(saved));
}

TEST(Checkpoint, LatestFallsBackToTheHighestCompleteOne) {
  TempDir dir;
  EXPECT_EQ(latest_checkpoint(dir / "run"), std::nullopt);
  for (int64_t step : {9, 10}) save_checkpoint(dir / "run", checkpoint_contents(dir.path(), step), 2);
  const fs::path checkpoints = dir / "run/checkpoints";
  fs::create_directory(checkpoints / "step-11");  // without a manifest: not complete
  for (const char* stale : {"step-8\n", "step-11\n", "", "../../etc\n", "step-99999999999999999999", "\xff\0"}) {
    test::write_file(checkpoints / "latest", stale);
    EXPECT_EQ(latest_checkpoint(dir / "run"), checkpoints / "step-10") << stale;
  }
  fs::remove(checkpoints / "latest");
  EXPECT_EQ(latest_checkpoint(dir / "run"), checkpoints / "step-10");
  test::write_file(checkpoints / "latest", "step-9");
  EXPECT_EQ(latest_checkpoint(dir / "run"), checkpoints / "step-9");
}

TEST(Checkpoint, DamageIsNamed) {
  TempDir dir;
  const fs::path saved = save_checkpoint(dir / "run", checkpoint_contents(dir.path(), 1), 1);
  for (const auto& name : names_in(saved)) {
    const std::string whole = test::read_file(saved / name);
    std::string flipped = whole;
    flipped[flipped.size() / 2] ^= 0x10;
    for (const std::string& damaged : {flipped, whole.substr(0, whole.size() - 2), whole + "x", std::string()}) {
      test::write_file(saved / name, damaged);
      test::expect_contains(refusal(saved), name);
    }
    fs::remove(saved / name);
    test::expect_contains(refusal(saved), name);
    test::write_file(saved / name, whole);
  }
  EXPECT_EQ(refusal(saved), "accepted");
}

TEST(Checkpoint, FlippedBitsOfTheManifestAreSeen) {
  TempDir dir;
  const fs::path saved = save_checkpoint(dir / "run", checkpoint_contents(dir.path(), 1), 1);
  const std::string whole = test::read_file(saved / "satin.json");
  for (size_t bit = 0; bit < whole.size() * 8; bit += 11) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    test::write_file(saved / "satin.json", flipped);
    try {
      // A flip that JSON does not care about (a tab for a space) may pass: then the content is what it was.
      EXPECT_EQ(read_manifest(saved).files.size(), 5u) << bit;
      EXPECT_EQ(read_manifest(saved).step, 1) << bit;
    } catch (const UserError&) {
    }
  }
}

TEST(Checkpoint, StrangeManifestsAreRefused) {
  TempDir dir;
  const fs::path saved = save_checkpoint(dir / "run", checkpoint_contents(dir.path(), 1), 1);
  const auto good = nlohmann::json::parse(test::read_file(saved / "satin.json"));
  const auto with = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json changed = good;
    changed.erase("crc32c");
    changed[nlohmann::json::json_pointer(pointer)] = value;
    const std::string canonical = changed.dump();
    changed["crc32c"] = crc32c(std::as_bytes(std::span(canonical)));
    test::write_file(saved / "satin.json", changed.dump());
    return refusal(saved);
  };
  EXPECT_EQ(with("/tokens", 3), "accepted");
  test::expect_contains(with("/format_version", 2), "expected format_version 1, found 2");
  test::expect_contains(with("/step", "7"), "not a manifest");
  test::expect_contains(with("/files", 3), "not a manifest");
  test::expect_contains(with("/files/..~1x", 3), "plain name");
  test::expect_contains(with("/files/config.yaml", {{"size_bytes", "9"}}), "not a manifest");
  test::expect_contains(with("/schemes/a", 3), "not a quantization scheme");
  nlohmann::json scheme = {{"method", "lsq"},          {"bits", 4},     {"group_size", 32}, {"scale_dtype", "bfloat16"},
                           {"dequant_dtype", "exact"}, {"init", "data"}};
  EXPECT_EQ(with("/schemes/a", scheme), "accepted");
  for (const auto& [key, value, reason] :
       std::vector<std::tuple<const char*, nlohmann::json, const char*>>{{"method", "lsg", "lsq"},
                                                                         {"method", "none", "not a scheme"},
                                                                         {"bits", 77, "from 2 to 8"},
                                                                         {"bits", 1 << 20, "from 2 to 8"},
                                                                         {"group_size", -2, "group_size"},
                                                                         {"scale_dtype", "int8", "found \"int8\""},
                                                                         {"init", 3, "not a quantization scheme"}}) {
    nlohmann::json changed = scheme;
    changed[key] = value;
    test::expect_contains(with("/schemes/a", changed), reason);
  }
}

}  // namespace satin::io
