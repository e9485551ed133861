// The model card, and that the bits that are printed are those of the files.
#include <numeric>

#include "export/packed_format.h"

namespace satin::exporting {
namespace {

class ModelCard : public PackedFormat {};

TEST_F(ModelCard, SaysWhatIsInTheFilesAndHowToLoadThem) {
  ShippedModel model = make_model(make_scheme(Method::kBinary, 1, 64));
  WriteOptions options;
  options.evaluate = [](const fs::path& written) {
    EXPECT_TRUE(fs::exists(written / "model.safetensors") || fs::exists(written / "model.gguf"));
    return std::vector{Evaluation{"books", 12.34567, 12.5, "windows of 8"}};
  };
  for (const auto& format : formats()) {
    if (format->name() == "bitnet") continue;  // wants a scale a tensor and activations
    export_model(model, *format, dir / format->name(), false, options);
    const std::string card = test::read_file(dir / format->name() / "README.md");
    const auto has = [&](const std::string& text) { EXPECT_NE(card.find(text), std::string::npos) << text << card; };
    EXPECT_EQ(card.substr(0, 4), "---\n");
    if (!format->one_file()) has("library_name: transformers\n");
    has("# model (" + format->name() + ")\n");
    EXPECT_EQ(card.find(dir.path().string()), std::string::npos) << card;  // the name, not the path
    has("| down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj | 14 | ");
    has("binary, groups of 64 | 1 | ");
    has("| books | 12.3457 | 12.5000 | windows of 8 |");
    has(format->name() == "gptq"   ? "GPTQModel.load"
        : format->name() == "gguf" ? "llama-cli -m DIRECTORY/model.gguf"
                                   : "AutoModelForCausalLM.from_pretrained");
    has("satin generate --model DIRECTORY");
    has("compared bit for bit");
    EXPECT_EQ(card.find("lossy"), std::string::npos) << card;
  }
  EXPECT_NE(test::read_file(dir / "hf/README.md").find("dense BFloat16 | 16 |"), std::string::npos);
  EXPECT_NE(test::read_file(dir / "compressed-tensors/README.md").find("2-bit codes, groups of 64 | 2.250 |"),
            std::string::npos);
  EXPECT_NE(test::read_file(dir / "awq/README.md").find("4-bit codes"), std::string::npos);
}

// Bytes on disk of packed layers against the effective bits that `satin inspect` prints, at books-29m's shape.
TEST_F(ModelCard, EffectiveBitsAreThoseOnDisk) {
  for (const auto& scheme : {make_scheme(Method::kLsqAsymmetric, 2, 64), make_scheme(Method::kLsq, 4, 128),
                             make_scheme(Method::kLsq, 3, 32), make_scheme(Method::kTernary, 2, -1)}) {
    const ShippedModel model = make_model(scheme, 0, /*intermediate_size=*/1536, /*hidden_size=*/512);
    for (const std::string name : {"compressed-tensors", "gptq", "awq", "gguf"}) {
      SCOPED_TRACE(cat(quant::describe(scheme), " ", name));
      export_model(model, format(name), dir / "out", true);
      const ShippedModel back = open_model(dir / "out");
      double dense_bytes = 0, packed_bits = 0, packed = 0;
      for (const auto& tensor : back.tensors) {
        const auto count = static_cast<double>(tensor.num_elements());
        const double dense = name == "gguf" && tensor.shape.size() == 1 ? 4 : 2;  // norms and biases are fp32 there
        (tensor.scheme ? packed_bits : dense_bytes) += count * (tensor.scheme ? tensor.effective_bits : dense);
        if (tensor.scheme) packed += count;
      }
      const Footprint size = footprint(back);
      EXPECT_NEAR(size.effective_bits, packed_bits / packed, 1e-9);
      const double on_disk = 8 * (static_cast<double>(size.size_bytes) - dense_bytes) / packed;  // with the header
      EXPECT_NEAR(on_disk / size.effective_bits, 1, .01);
    }
  }
}

}  // namespace
}  // namespace satin::exporting
