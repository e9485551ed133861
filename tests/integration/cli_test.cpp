// The program as a user meets it: commands, exit codes, messages, files.
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "integration/cli_fixture.h"

namespace satin {
namespace {

TEST_F(Cli, EveryCommandHasHelpWithAnExample) {
  expect(satin("--version"), 0, {"satin 0.", "torch 2.11", "CUDA"});
  for (const char* command : {"train", "quantize", "allocate", "eval", "export", "generate", "inspect", "tokenize",
                              "cache-teacher", "report", "bench", "doctor"})
    expect(satin(std::string(command) + " --help"), 0, {"Example: satin " + std::string(command)});
  expect(satin("train --help-config"), 0, {"learning_rate", "group_size", "neighbourhood"});
  expect(satin("doctor"), 0, {"processor", "memory"});
  EXPECT_TRUE(nlohmann::json::accept(satin("doctor --json").output));
}

TEST_F(Cli, ProfileSaysWhereTimeGoes) {
  expect(satin(tiny("p", "--profile")), 0, {"profiled steps 4 to 6"});
  const std::string table = test::read_file(dir / "p/profile.txt");
  for (const char* text : {"3 steps of", "ms/step", "satin::fake_quant", "aten::"})
    EXPECT_NE(table.find(text), std::string::npos) << text << "\n--- in ---\n" << table;
  const auto trace = nlohmann::json::parse(test::read_file(dir / "p/trace.json"));
  EXPECT_GT(trace.at("traceEvents").size(), 100u);
  expect(satin(tiny("short", "train.max_steps=5 --profile")), 2, {"at least 6 steps", "found 5"});
}

TEST_F(Cli, UsageErrorsExitTwo) {
  expect(satin("trian x.yaml"), 2, {});
  expect(satin("train"), 2, {"expected a config file"});
  expect(satin("train " + (dir / "none.yaml").string()), 2, {"none.yaml"});
  test::write_file(dir / "bad.yaml", "model:\n  path: .\n  pth: x\ntrain:\n  max_steps: many\noptimzer: {}\n");
  expect(satin("train " + (dir / "bad.yaml").string()), 2,
         {"bad.yaml:3", "pth", "bad.yaml:5", "bad.yaml:6", "'optimizer'"});
  expect(satin(tiny("x", "quantization.default.bits=9")), 2, {"bits"});
  expect(satin("eval --model " + dir.path().string() + " --data " + (quick / "text/valid.jsonl").string()), 2,
         {"config.json"});
  expect(satin("eval --model " + (quick / "teacher").string() + " --data " + (quick / "text/valid.jsonl").string() +
               " --tasks perplexty"),
         2, {"'perplexity'"});
  expect(satin("export --checkpoint " + (quick / "teacher").string() + " --format hff --output x"), 2, {"'hf'"});
  const std::string table = (dir / "tiles.json").string();
  expect(satin("bench --tune " + table + " --device cpu"), 2, {"sm_90", "CPU"});
  expect(satin("bench --tune " + (dir / "none/tiles.json").string()), 2, {"--tune", "none"});
  expect(satin("bench step --tune " + table), 2, {"step"});
  test::write_file(table, "{}");
  expect(satin("bench --only \"2 bits\" --tune " + table), 2, {"tiles.json", "--only"});
}

TEST_F(Cli, TrainsEvaluatesExportsAndReports) {
  expect(satin(tiny("run", "logging.quantizers_every_n_steps=5")), 0,
         {"lsq_asymmetric", "student as shipped", "equal bit for bit"});
  for (const char* file :
       {"config.yaml", "metrics.jsonl", "log.txt", "report.html", "evaluation.json", "quantization.json",
        "quantizers.jsonl", "checkpoints/latest", "checkpoints/step-6/satin.json", "export/hf/model.safetensors",
        "export/compressed-tensors/config.json", "events.out.tfevents.0.satin"})
    EXPECT_TRUE(fs::exists(dir / "run" / file)) << file;
  std::ifstream lines(dir / "run/metrics.jsonl");
  int num_steps = 0, num_measured = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto entry = nlohmann::json::parse(line);
    if (entry.contains("eval")) continue;  // what the shipped model scored
    if (entry.contains("quantizers")) {
      EXPECT_EQ(entry["step"], 5);
      EXPECT_GT(entry["quantizers"]["changed"], 0);
      ++num_measured;
      continue;
    }
    for (const char* key : {"step", "tokens", "loss", "kd", "lr", "grad_norm", "tokens_per_second", "memory"})
      EXPECT_TRUE(entry.contains(key)) << key;
    EXPECT_EQ(entry["step"], ++num_steps);
  }
  EXPECT_EQ(num_steps, 6);
  EXPECT_EQ(num_measured, 1);
  EXPECT_EQ(nlohmann::json::parse(test::read_file(dir / "run/quantizers.jsonl"))["layers"].size(), 28u);

  expect(satin(tiny("run")), 2, {"already holds a run", "--resume auto"});
  expect(satin(tiny("run", "--resume auto")), 0,
         {"resuming from"});  // finished: only what follows training is done again

  // The checkpoint, both exports and the library agree on the perplexity.
  std::vector<double> perplexities;
  for (const char* model : {"checkpoints/step-6", "export/hf", "export/compressed-tensors"}) {
    expect(satin("eval --device cpu --model " + (dir / "run" / model).string() + " --data " +
                 (quick / "text/valid.jsonl").string() + " --sequence-length 64 --limit 4 --json " +
                 (dir / "eval.json").string()),
           0, {"protocol"});
    perplexities.push_back(nlohmann::json::parse(test::read_file(dir / "eval.json"))["perplexity"]);
  }
  EXPECT_EQ(perplexities[0], perplexities[1]);
  EXPECT_EQ(perplexities[0], perplexities[2]);

  const auto found =
      nlohmann::json::parse(satin("inspect --json " + (dir / "run/export/compressed-tensors").string()).output);
  EXPECT_EQ(found["kind"], "compressed-tensors");
  EXPECT_EQ(found["bits"], 2.0);
  EXPECT_NEAR(found["effective_bits"].get<double>(), 2 + 18 / 64.,
              1e-9);  // a 16-bit scale and a 2-bit zero point a group
  expect(satin("generate --device cpu --max-new-tokens 5 --prompt 'My dear' --model " +
               (dir / "run/export/compressed-tensors").string()),
         0, {"My dear"});
  expect(satin("export --checkpoint " + (dir / "run/checkpoints/step-6").string() +
               " --format compressed-tensors --output " + (dir / "again").string() + " --data " +
               (quick / "text/valid.jsonl").string()),
         0, {"perplexity before", "perplexity after"});
  const std::string gptq = "export --checkpoint " + (dir / "run/checkpoints/step-6").string() + " --output " +
                           (dir / "gptq").string() + " --format ";
  expect(satin(gptq + "gptq --gptq-version 3"), 2, {"--gptq-version: expected 1 or 2, found 3"});
  expect(satin(gptq + "hf --gptq-version 1"), 2, {"only with --format gptq"});
  for (const auto& [version, stored] : {std::pair{"--gptq-version 1", "gptq"}, std::pair{"--force", "gptq_v2"}}) {
    expect(satin(gptq + "gptq " + version), 0, {"equal to the checkpoint's", "2.469 effective bits"});
    EXPECT_EQ(nlohmann::json::parse(test::read_file(dir / "gptq/quantize_config.json"))["checkpoint_format"], stored);
  }
  expect(satin("eval --device cpu --model " + (dir / "gptq").string() + " --data " +
               (quick / "text/valid.jsonl").string() + " --sequence-length 64 --limit 4 --json " +
               (dir / "eval.json").string()),
         0, {"protocol"});
  EXPECT_EQ(nlohmann::json::parse(test::read_file(dir / "eval.json"))["perplexity"], perplexities[0]);
  expect(satin("inspect " + (dir / "gptq").string()), 0, {"gptq, ", "2.469"});  // with g_idx, 32 bits an input
  expect(satin("generate --device cpu --max-new-tokens 5 --prompt 'My dear' --model " + (dir / "gptq").string()), 0,
         {"My dear"});

  // Codes, dense, several prompts.
  const auto generate = [&](const std::string& model, const std::string& options) {
    return satin("generate --device cpu --max-new-tokens 8 --model " + (dir / model).string() + " " + options);
  };
  for (const char* model : {"gptq", "run/export/compressed-tensors"}) {
    const auto low_bit = generate(model, "--prompt 'My dear' --kernel low-bit");
    expect(low_bit, 0, {"My dear", "packed weights on cpu: packed kernel"});
    expect(generate(model, "--prompt 'My dear'"), 0, {"packed kernel"});
    const auto dense = generate(model, "--prompt 'My dear' --kernel dense");
    expect(dense, 0, {"My dear"});
    EXPECT_EQ(dense.output.find("packed"), std::string::npos) << dense.output;
  }
  test::write_file(dir / "prompts.txt", "It was\n\nThe man\n");
  expect(generate("gptq", "--prompt 'My dear' --prompts " + (dir / "prompts.txt").string()), 0,
         {"== 1\nMy dear", "== 2\nIt was", "== 3\nThe man"});
  expect(generate("gptq", "--prompt 'My dear' --kernel sparse"), 2,
         {"expected auto, dense or low-bit, found 'sparse'"});
  expect(generate("gptq", ""), 2, {"expected --prompt TEXT or --prompts FILE"});
  expect(generate("gptq", "--prompts " + (dir / "none.txt").string()), 2, {"cannot read"});
  expect(satin("generate --prompt x --kernel low-bit --model " + (quick / "teacher").string()), 2,
         {"holds no quantized weights; use --kernel dense or auto"});

  expect(satin("report " + (dir / "run").string() + " --output " + (dir / "r.html").string()), 0, {});
}

TEST_F(Cli, DataOfTheModelsOwn) {
  const std::string tokens = (dir / "own.tokens").string(), model = (quick / "teacher").string();
  const std::string make = "generate --device cpu --max-new-tokens 40 --texts 12 --model " + model + " --output ";
  expect(satin(make + tokens), 0, {"own.tokens: 12 documents, "});
  expect(satin(make + tokens), 2, {"exists; use --force"});
  const std::string first = test::read_file(tokens);
  expect(satin(make + tokens + " --force"), 0, {});
  EXPECT_EQ(test::read_file(tokens), first);
  expect(satin(make + tokens + " --force --seed 1"), 0, {});
  EXPECT_NE(test::read_file(tokens), first);
  expect(satin(make + (dir / "own.bin").string()), 2, {"ends in .tokens"});
  expect(satin(make + tokens + " --force --prompt x"), 2, {"expected no --prompt"});
  // Calibration and training read it.
  for (const char* command : {"quantize", "train"})
    expect(satin(cat(command, " ", (quick / "qat.yaml").string(), " 'data.train=[", tokens,
                     "]' train.output_dir=", (dir / command).string(),
                     " train.device=cpu train.max_steps=2 train.sequence_length=32 "
                     "train.micro_batch_size=2 quantization.calibration_sequences=4 ptq.method=gptq eval.limit=2 "
                     "'export.formats=[]'")),
           0, {});
}

TEST_F(Cli, EveryKindOfSchemeIsEvaluatedAsItWasTrained) {
  const auto perplexity = [&](const std::string& model) {
    expect(satin("eval --device cpu --model " + model + " --data " + (quick / "text/valid.jsonl").string() +
                 " --sequence-length 256 --limit 4 --json " + (dir / "eval.json").string()),
           0, {"protocol"});
    return nlohmann::json::parse(test::read_file(dir / "eval.json"))["perplexity"].get<double>();
  };
  const std::vector<std::string> schemes = {
      "quantization.default.method=onebit quantization.default.bits=1 quantization.default.group_size=-1",
      "quantization.default.method=lwc quantization.default.bits=3 quantization.kv_cache=int4",
      "quantization.default.group_size=0 quantization.default.activations=int8_static",
      "'quantization.overrides=[{match: \"*embed_tokens\", method: lsq, bits: 4}]' quantization.damping=1e-4 "
      "quantization.default.init=weighted_mse quantization.fake_quant_after_n_steps=2 "
      "'quantization.hardening=[{bits: 8, until: 0.7}]'",
      "quantization.default.method=bitnet quantization.default.bits=1.58 quantization.default.activations=int8 "
      "'export.formats=[compressed-tensors]'"};
  for (size_t i = 0; i < schemes.size(); ++i) {
    const std::string run = "s" + std::to_string(i);
    const auto trained = satin(tiny(run, "export.formats=[] " + schemes[i]));
    expect(trained, 0, {"student as shipped"});
    const double shipped =
        nlohmann::json::parse(test::read_file(dir / run / "evaluation.json"))["student"]["valid"]["perplexity"];
    EXPECT_EQ(perplexity((dir / run / "checkpoints/step-6").string()), shipped) << schemes[i];
    if (i == 3)
      expect(trained, 0, {"step 3: quantization begins with at least 8 bits", "step 6: quantization goes on"});
    if (i == 4) {
      EXPECT_EQ(perplexity((dir / run / "export/compressed-tensors").string()), shipped);
    }
  }
  // What a format has no place for is refused before training.
  expect(satin(tiny("no", schemes[0])), 2, {"second value vector", "exactly: none"});
  expect(satin(tiny("no", "quantization.default.activations=int8 'export.formats=[hf]'")), 2,
         {"8-bit activations", "exactly: compressed-tensors"});
  expect(satin(tiny("no",
                    "'quantization.overrides=[{match: \"*down_proj\", method: lsq, bits: 4}]' "
                    "'export.formats=[gptq]'")),
         2, {"one number of bits", "exactly: hf, compressed-tensors"});
  expect(satin(tiny("no", "quantization.fake_quant_after_n_steps=6")), 2, {"fewer than the run's 6 steps"});
  const std::string coarse = "generate --device cpu --max-new-tokens 5 --prompt 'My dear' --model " +
                             (quick / "teacher").string() + " --kv-cache ";
  expect(satin(coarse + "int4"), 0, {"My dear"});
  expect(satin(coarse + "int3"), 2, {"--kv-cache: expected none, int8 or int4"});
}

// A checkpoint between two stages belongs to the first: what the second begins with is made again on resuming.
TEST_F(Cli, ResumesAtTheBorderOfAStage) {
  const std::string stages =
      "export.formats=[] data.valid=[] checkpoint.every_n_steps=1 checkpoint.keep=9 "
      "quantization.fake_quant_after_n_steps=2 quantization.default.activations=int8_static "
      "'quantization.hardening=[{bits: 8, until: 0.5}, {bits: 4, until: 0.8}]' ";
  ASSERT_EQ(satin(tiny("whole", stages)).exit_code, 0);
  for (const char* step : {"1", "2", "3", "5"}) {
    const auto resumed = satin(
        tiny(std::string("from-") + step, stages + "--resume " + (dir / "whole/checkpoints/step-").string() + step));
    EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
    EXPECT_EQ(weights(std::string("from-") + step), weights("whole")) << step;
  }
  // Not yet quantizing it is the dense model, afterwards it is not.
  EXPECT_EQ(nlohmann::json::parse(
                satin("inspect --json " + (dir / "whole/checkpoints/step-2").string()).output)["quantized_parameters"],
            0);
  EXPECT_NE(nlohmann::json::parse(
                satin("inspect --json " + (dir / "whole/checkpoints/step-3").string()).output)["quantized_parameters"],
            0);
  expect(satin(tiny("no", "'quantization.hardening=[{bits: 8, until: 0.9}]'")), 2, {"none of the run's 6 steps"});
}

TEST_F(Cli, AStartThatFailedDoesNotOccupyTheDirectory) {
  test::write_file(dir / "empty.jsonl", "");
  expect(satin(tiny("again", "data.train.0.path=" + (dir / "empty.jsonl").string())), 2, {"empty.jsonl"});
  EXPECT_TRUE(fs::exists(dir / "again/log.txt"));
  expect(satin(tiny("again")), 0, {"student as shipped"});
  fs::create_directories(dir / "other");
  test::write_file(dir / "other/thesis.txt", "");
  expect(satin(tiny("other")), 2, {"is not empty", "thesis.txt"});
}

TEST_F(Cli, DryRunWritesNothing) {
  expect(satin(tiny("dry", "--dry-run")), 0, {"effective bits", "activations", "optimizer", "teacher", "embeddings"});
  EXPECT_FALSE(fs::exists(dir / "dry"));
}

TEST_F(Cli, BenchMeasuresBesideFloors) {
  const std::string file = (dir / "bench.json").string();
  expect(satin("bench fake_quant --device cpu --only \"bfloat16 [1024\" --json " + file), 0,
         {"group 64", "per row", "floor"});
  const auto found = nlohmann::json::parse(test::read_file(file))["measurements"];
  ASSERT_EQ(found.size(), 21u);  // the copy, then 9 schemes and torch's own operator, forward and backward
  for (size_t i = 1; i < found.size(); ++i) {
    EXPECT_GT(found[i]["us"].get<double>(), 0);
    EXPECT_GT(found[i]["fraction_of_floor"].get<double>(), 0);
  }
  expect(satin("bench step --device cpu"), 0, {"dense", "tokens/s", "dense + "});
  expect(satin("bench stepp"), 2, {"'step'"});
}

TEST_F(Cli, SameSeedSameBitsAndTheSplitIntoMicroBatchesIsRounding) {
  ASSERT_EQ(satin(tiny("a")).exit_code, 0);
  ASSERT_EQ(satin(tiny("b")).exit_code, 0);
  EXPECT_EQ(weights("a"), weights("b"));
  ASSERT_EQ(satin(tiny("c", "train.micro_batch_size=2 train.gradient_accumulation_steps=2")).exit_code, 0);
  const auto loss = [&](const std::string& run) {
    std::ifstream in(dir / run / "metrics.jsonl");
    std::string line, last;
    while (std::getline(in, line))
      if (line.find("\"loss\"") != std::string::npos) last = line;
    return nlohmann::json::parse(last)["loss"].get<double>();
  };
  EXPECT_NEAR(loss("a"), loss("c"), 1e-3 * loss("a"));  // six steps of fp32 at the same draws
}

TEST_F(Cli, DivergenceExitsFourAndNamesTheLastCheckpoint) {
  const auto result = satin(tiny(
      "nan",
      "optimizer.learning_rate=1e30 optimizer.clip_grad_norm=0 optimizer.warmup_ratio=0 checkpoint.every_n_steps=1"));
  expect(result, 4, {"diverged at step", "nearest to the cause: ", "Last good checkpoint: "});
}

TEST_F(Cli, BadFilesExitTwo) {
  fs::copy(quick / "teacher", dir / "model", fs::copy_options::recursive);
  const std::string model = " model.path=" + (dir / "model").string();
  const std::string whole = test::read_file(dir / "model/model.safetensors");
  test::write_file(dir / "model/model.safetensors", whole.substr(0, whole.size() / 2));
  expect(satin(tiny("t", model)), 2, {"model.safetensors"});
  test::write_file(dir / "model/model.safetensors", whole);

  auto config = nlohmann::json::parse(test::read_file(dir / "model/config.json"));
  config["vocab_size"] = 100;
  test::write_file(dir / "model/config.json", config.dump());
  expect(satin(tiny("v", model)), 2, {"model.embed_tokens.weight"});
  config["vocab_size"] = 2048;
  config["sliding_window"] = 16;
  config["model_type"] = "mistral";
  test::write_file(dir / "model/config.json", config.dump());
  expect(satin(tiny("s", model)), 2, {"sliding_window"});

  test::write_file(dir / "empty.jsonl", "");
  expect(satin(tiny("e", "data.train.0.path=" + (dir / "empty.jsonl").string())), 2, {"empty.jsonl"});
  test::write_file(dir / "binary.txt", std::string("\0\1\2\3", 4));
  expect(satin(tiny("b", "data.train.0.path=" + (dir / "binary.txt").string())), 2, {"binary.txt"});
  expect(satin(tiny("g", "quantization.overrides=[{match: model.layers.9.*, bits: 4}]")), 2, {"model.layers.9.*"});

  test::write_file(dir / "file", "");
  expect(satin(tiny("file")), 2, {"output_dir"});
}

}  // namespace
}  // namespace satin
