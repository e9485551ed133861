// satin allocate as a user meets it: lists within the budget, an interruption, and quantize reading a list.
#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "cli_fixture.h"
#include "core/error.h"
#include "io/safetensors.h"

namespace satin {
namespace {

class CliAllocate : public Cli {
 protected:
  std::string settings(const std::string& name, const std::string& more) {
    return (quick / "qat.yaml").string() + " train.output_dir=" + (dir / name).string() +
           " data.cache_dir=" + (dir / "cache").string() +
           " train.device=cpu train.sequence_length=64 train.micro_batch_size=4 eval.limit=2 'export.formats=[]' " +
           more;
  }
  std::string allocate(const std::string& name, const std::string& more = "") {
    return "allocate " +
           settings(name, "'allocate.candidates=[2,4]' allocate.average_bits=3 allocate.samples=4 " + more);
  }
  nlohmann::json result(const std::string& name) {
    return nlohmann::json::parse(test::read_file(dir / name / "allocation.json"));
  }
};

TEST_F(CliAllocate, ListsKeepTheBudgetAndAreRead) {
  const fs::path questions = dir / "questions.jsonl";
  std::string lines;
  for (int i = 0; i < 6; ++i)
    lines += cat("{\"text\": \"Question: Who came at ", i, "? Answer: Holmes came with Watson at ", i, ".\"}\n");
  test::write_file(questions, lines);
  expect(satin(allocate("a", "allocate.reasoning=" + questions.string())), 0,
         {"% general text is closest", "full precision", "allocation", "uniform", "perplexity-only", "random-2",
          "quantization.overrides_from=", "Kendall's tau: 2 bits"});
  const auto found = result("a");
  const std::string page = test::read_file(dir / "a/report.html");
  EXPECT_NE(page.find("Bits of layers"), std::string::npos);
  EXPECT_NE(page.find("perplexity-only"), std::string::npos);
  for (const auto& [name, list] : found["lists"].items()) {
    EXPECT_LE(list["mean_bits"], 3) << name;
    EXPECT_GT(list["effective_bits"], list["mean_bits"]) << name;  // scales and zero points
    EXPECT_GT(list["perplexity"], found["full_precision"]["perplexity"]) << name;
    EXPECT_TRUE(fs::exists(dir / "a" / (name + ".yaml")));
  }
  EXPECT_EQ(found["lists"]["uniform"]["mean_bits"], 2);
  // The least sum of what was measured: no other choice of two layers with 4 bits has less.
  const auto& rise = found["sensitivity"];
  double least = 1e9;
  for (size_t i = 0; i < 4; ++i)
    for (size_t j = i + 1; j < 4; ++j) {
      double sum = 0;
      for (size_t k = 0; k < 4; ++k) sum += rise[k][k == i || k == j ? "4" : "2"].get<double>();
      least = std::min(least, sum);
    }
  EXPECT_LE(found["lists"]["allocation"]["sensitivity"].get<double>(), least + 1e-12);

  const std::string list = (dir / "a/allocation.yaml").string();
  expect(satin("quantize " + settings("q", "quantization.overrides_from=" + list)), 0, {});
  const auto manifest = nlohmann::json::parse(test::read_file(dir / "q/checkpoints/step-0/satin.json"));
  const std::vector<int> bits = found["lists"]["allocation"]["bits"];
  for (int layer = 0; layer < 4; ++layer)
    EXPECT_EQ(manifest["schemes"][cat("model.layers.", layer, ".mlp.up_proj")]["bits"], bits[layer]);
  // What is stored needs the list no more, and an override here beats it.
  EXPECT_NE(test::read_file(dir / "q/config.yaml").find("model.layers.3.*"), std::string::npos);
  expect(satin("quantize " + settings("r", "quantization.overrides_from=" + list +
                                               " 'quantization.overrides=[{match: model.layers.0.*, bits: 8}]'")),
         0, {"8     64"});
}

TEST_F(CliAllocate, ByCurvature) {
  for (const std::string kind : {"fisher", "hessian"}) {
    expect(satin(allocate(kind, "allocate.pareto_points=3 allocate.sensitivity=" + kind)), 0,
           {"full precision", "allocation", "uniform", "random-2"});
    const auto found = result(kind);
    EXPECT_FALSE(found["lists"].contains("perplexity-only"));
    for (const auto& layer : found["sensitivity"]) EXPECT_GT(layer["2"], layer["4"]);
    ASSERT_EQ(found["frontier"].size(), 3u);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(found["frontier"][i]["mean_bits"], 2 + static_cast<double>(i));
    EXPECT_GT(found["frontier"][0]["perplexity"], found["frontier"][2]["perplexity"]);
  }
  expect(
      satin(allocate("x", "allocate.sensitivity=fisher allocate.reasoning=" + (quick / "text/valid.jsonl").string())),
      2, {"fisher looks at data.train alone"});
}

/// The teacher with 128 inputs of each down_proj that are much larger than its others.
void write_uneven_teacher(const fs::path& from, const fs::path& to) {
  fs::copy(from, to);
  const io::SafetensorsFile file(from / "model.safetensors");
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [name, info] : file.tensors()) {
    const at::Tensor value = file.tensor(name).clone();
    if (name.ends_with("up_proj.weight")) value.narrow(0, 128, 128).mul_(8);
    tensors.emplace_back(name, value);
  }
  io::write_safetensors(to / "model.safetensors", tensors);
}

TEST_F(CliAllocate, ColumnsHaveBitsOfTheirOwnInEveryCommand) {
  write_uneven_teacher(quick / "teacher", dir / "teacher");
  const std::string teacher = "model.path=" + (dir / "teacher").string() + " ";
  const auto allocated =
      satin("allocate " + settings("a", teacher + "'allocate.candidates=[3]' allocate.average_bits=3 "
                                                  "allocate.samples=4 allocate.pareto_points=0 "
                                                  "allocate.columns=true"));
  const auto lists = result("a")["lists"];
  const bool are_better = lists["columns"]["perplexity"] < lists["allocation"]["perplexity"];
  expect(allocated, 0,
         {"linear layers get a bit more for some", "24 have inputs other than 2, 3, ... times 128",
          are_better ? "a/columns.yaml" : "a/allocation.yaml"});
  EXPECT_EQ(lists["columns"]["mean_bits"], 3);
  EXPECT_EQ(lists["columns"]["effective_bits"], lists["allocation"]["effective_bits"]) << "the mean is kept";
  std::string changed;
  for (const auto& [name, module] : lists["columns"]["modules"].items()) {
    EXPECT_TRUE(name.ends_with("mlp.down_proj")) << name;  // 384 inputs
    EXPECT_LE(module["error_after"], module["error_before"]);
    if (module["pairs"] == 0) continue;
    EXPECT_EQ(module["column_bits"][1], 4) << name << ": the large inputs";
    EXPECT_LT(module["error_after"], module["error_before"]);
    changed = name;
  }
  EXPECT_EQ(lists["columns"]["modules"].size(), 4u);
  ASSERT_FALSE(changed.empty()) << lists["columns"].dump(1);
  EXPECT_EQ(test::read_file(dir / "a/allocation.yaml").find("column_bits"), std::string::npos) << "the control";

  const std::string by_list =
      teacher + "quantization.default.bits=3 quantization.overrides_from=" + (dir / "a/columns.yaml").string() + " ";
  const std::string train = "train " + settings("t", by_list +
                                                         "train.max_steps=2 checkpoint.every_n_steps=1 "
                                                         "'export.formats=[compressed-tensors]' --resume auto");
  expect(satin(train), 0,
         {"columns of 2, 3 and 4 bits are stored in 4: model.layers.", "read back and equal bit for bit"});
  // A step, and another from its checkpoint, are the two.
  const fs::path checkpoints = dir / "t/checkpoints";
  const std::string whole = test::read_file(checkpoints / "step-2/model.safetensors");
  fs::remove_all(checkpoints / "step-2");
  fs::remove_all(dir / "t/export");
  test::write_file(checkpoints / "latest", "step-1\n");
  expect(satin(train), 0, {"resuming from", "read back and equal bit for bit"});
  EXPECT_EQ(test::read_file(checkpoints / "step-2/model.safetensors"), whole);

  const auto inspected = [&](const fs::path& model) {
    const auto found = nlohmann::json::parse(satin("inspect --json " + model.string()).output);
    for (const auto& tensor : found["tensors"])
      if (tensor["name"] == changed + ".weight") return tensor;
    return nlohmann::json();
  };
  const auto trained = inspected(checkpoints / "step-2");
  EXPECT_EQ(trained["scheme"], "lsq_asymmetric 2, 3 and 4 bits, stored in 4, group 64 bfloat16");
  EXPECT_EQ(trained["bits"], 3);
  EXPECT_EQ(trained["stored_bits"], 4);
  EXPECT_DOUBLE_EQ(trained["effective_bits"], 3 + 16.0 / 64 + 3.0 / 64);
  EXPECT_EQ(inspected(dir / "t/export/compressed-tensors")["scheme"], "lsq_asymmetric 4 bits group 64 bfloat16");
  expect(satin("eval --model " + (checkpoints / "step-2").string() + " --data " +
               (quick / "text/valid.jsonl").string() + " --limit 2 --device cpu"),
         0, {"perplexity"});

  expect(satin("quantize " + settings("q", by_list + "ptq.method=gptq quantization.calibration_sequences=4")), 0,
         {"columns of 2, 3 and 4 bits are stored in 4"});
  expect(satin("quantize " + settings("x", by_list + "ptq.method=lwc")), 2,
         {"column_bits: ptq.method lwc clips layers of one number of bits"});
  expect(satin(allocate("x", by_list + "allocate.columns=true")), 2,
         {"column_bits: satin allocate chooses bits of layers"});
}

TEST_F(CliAllocate, GoesOnFromWhatWasMeasured) {
  expect(satin(allocate("whole")), 0, {});
  fs::create_directories(dir / "part");
  // As a kill leaves it: some results on the disk, and the configuration, which names its own folder.
  expect(satin(allocate("part")), 0, {});
  const std::string log = test::read_file(dir / "part/sensitivity.jsonl");
  size_t third = 0;
  for (int i = 0; i < 3; ++i) third = log.find('\n', third) + 1;
  test::write_file(dir / "part/sensitivity.jsonl", log.substr(0, third));
  fs::remove(dir / "part/allocation.json");
  expect(satin(allocate("part")), 2, {"continue it with --resume auto"});
  expect(satin(allocate("part", "allocate.samples=3 --resume auto")), 2,
         {"configured differently", "now '  samples: 3'"});
  expect(satin(allocate("part", "--resume auto")), 0, {});
  EXPECT_EQ(result("part"), result("whole"));
  EXPECT_EQ(test::read_file(dir / "part/sensitivity.jsonl"), log);
}

TEST_F(CliAllocate, ErrorsSayWhatToDo) {
  const fs::path config = dir / "c.yaml";
  test::write_file(config, "model: {path: " + (quick / "teacher").string() +
                               "}\nquantization:\n  default: {method: seq, bits: 2}\n  overrides_from: none.yaml\n"
                               "allocate:\n  candidates: [4, 8]\n  average_bits: 3\ntrain: {output_dir: out}\n");
  expect(satin("allocate " + config.string()), 2,
         {"c.yaml:4: quantization.overrides_from: there is no file", "c.yaml:7: allocate.average_bits: 3 is less than",
          "c.yaml:3: quantization.default.method: seq has one number of bits", "data.train"});
  expect(satin(allocate("y", "allocate.columns=true quantization.default.group_size=-1")), 2,
         {"allocate.columns: columns of other bits come in 128, which quantization.default.group_size must divide"});
}

}  // namespace
}  // namespace satin
