// The output directory appears whole or not at all, whatever ends the export.
#include <ATen/Parallel.h>
#include <gtest/gtest-death-test.h>
#include <sys/resource.h>

#include <csignal>

#include "export/packed_format.h"

namespace satin::exporting {
namespace {

class AtomicExport : public PackedFormat {
 protected:
  ShippedModel model() { return make_model(make_scheme(Method::kLsq, 4, 64)); }
  std::vector<std::string> entries() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(dir.path())) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  static bool same_tensors(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b) {
    if (a.size() != b.size()) return false;
    for (const auto& [name, value] : a)
      if (!b.contains(name) || !value.equal(b.at(name))) return false;
    return true;
  }
};

TEST_F(AtomicExport, AFailureLeavesTheOldExportAndNothingElse) {
  const ShippedModel good = model();
  export_model(good, format("gptq"), dir / "out", false);
  const auto before = read_tensors(dir / "out");

  ShippedModel refused = model();  // seen while packing: the last weight's scales
  auto weight = refused.find("model.layers.1.mlp.up_proj.weight")->quantized();
  weight.scale[0][0] = 1e6;
  EXPECT_NE(refusal([&] { export_model(refused, format("gptq"), dir / "out", true); }).find("float16"),
            std::string::npos);

  ShippedModel damaged = model();  // a tensor that cannot be read
  auto node = damaged.tensors.extract(damaged.tensors.find("model.norm.weight"));
  damaged.add({"model.norm.weight", node.value().shape, node.value().dtype,
               []() -> at::Tensor { throw UserError("the file is gone"); }});
  EXPECT_EQ(refusal([&] { export_model(damaged, format("hf"), dir / "out", true); }), "the file is gone");

  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{50'000, old.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string full = refusal([&] { export_model(good, format("hf"), dir / "out", true); });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(full.find("model.safetensors: File too large"), std::string::npos) << full;

  EXPECT_EQ(entries(), (std::vector<std::string>{"model", "out"}));
  EXPECT_TRUE(same_tensors(read_tensors(dir / "out"), before));
}

TEST_F(AtomicExport, AKilledExportLeavesAHiddenDirectoryThatTheNextOneRemoves) {
  const ShippedModel good = model();
  export_model(good, format("gptq"), dir / "out", false);
  const auto before = read_tensors(dir / "out");
  for (const std::string phase : {"packing", "verifying"}) {
    const auto killed = [&] {
      at::set_num_threads(1);  // the parent's threads are not in the child
      export_model(good, format("hf"), dir / "out", true, {.progress = [&](const std::string& now, double done) {
                     if (now == phase && done > .5) std::raise(SIGKILL);
                   }});
    };
    EXPECT_EXIT(killed(), testing::KilledBySignal(SIGKILL), "");
    EXPECT_EQ(entries(), (std::vector<std::string>{".out.partial", "model", "out"}));
    EXPECT_TRUE(same_tensors(read_tensors(dir / "out"), before));
  }
  export_model(good, format("hf"), dir / "out", true);
  EXPECT_EQ(entries(), (std::vector<std::string>{"model", "out"}));
  EXPECT_EQ(open_model(dir / "out").kind, "hf");
}

TEST_F(AtomicExport, ReplacesOnlyEarlierExports) {
  const ShippedModel good = model();
  EXPECT_NE(refusal([&] { export_model(good, format("hf"), dir / "model", true); }), "");  // the model itself
  EXPECT_NE(refusal([&] { export_model(good, format("hf"), dir.path(), true); }), "");     // what holds the model
  test::write_file(dir / "notes/thesis.txt", "...");
  EXPECT_NE(refusal([&] { export_model(good, format("hf"), dir / "notes", true); }), "");
  EXPECT_EQ(test::read_file(dir / "notes/thesis.txt"), "...");
  test::write_file(dir / "config.json", "{}");  // as if it were an export
  EXPECT_NE(refusal([&] { export_model(good, format("hf"), dir.path(), true); }).find("the model"), std::string::npos);
  EXPECT_TRUE(fs::exists(dir / "model/config.json"));
}

}  // namespace
}  // namespace satin::exporting
