// AWQ files against a reader that shares no code with the writer, what the format refuses, and damaged files.
#include "export/awq.h"

#include "export/packed_format.h"

namespace satin::exporting {
namespace {

class Awq : public PackedFormat {
 protected:
  std::string export_refusal(const ShippedModel& model) {
    return refusal([&] { export_model(model, format("awq"), dir / "out", true); });
  }
};

TEST_F(Awq, PackingHasTheFormatsOrder) {
  const at::Tensor codes = at::arange(16, at::kByte).view({1, 16});
  const at::Tensor words = pack_awq(codes);
  EXPECT_EQ(static_cast<uint32_t>(words[0][0].item<int>()), 0x75316420u);
  EXPECT_EQ(static_cast<uint32_t>(words[0][1].item<int>()), 0xfdb9eca8u);
  EXPECT_TRUE(unpack_awq(words).equal(codes));
}

TEST_F(Awq, UnpackedNibbleByNibbleItIsTheDenseExport) {
  SATIN_NEEDS_PYTHON("numpy");
  for (const auto& [method, bits, group] : {std::tuple{Method::kLsq, 4, int64_t{64}},
                                            {Method::kLsqAsymmetric, 4, 32},
                                            {Method::kLsqAsymmetric, 4, -1},
                                            {Method::kLsqAsymmetric, 2, 64},
                                            {Method::kLsq, 3, 64},
                                            {Method::kTernary, 2, -1},
                                            {Method::kBinary, 1, 64}})
    for (const auto storage : {quant::Storage::kBFloat16, quant::Storage::kFloat16}) {
      quant::Scheme scheme = make_scheme(method, bits, group);
      scheme.scale_dtype = scheme.dequant_dtype = storage;
      SCOPED_TRACE(quant::describe(scheme));
      const ShippedModel model = make_model(scheme);
      export_model(model, format("awq"), dir / "awq", true);
      export_model(model, format("hf"), dir / "hf", true);
      const auto found =
          test::run_python("export/awq_oracle.py " + (dir / "awq").string() + " " + (dir / "hf").string());
      EXPECT_EQ(found.output, "14 modules, group " + std::to_string(group) + "\n");
      const ShippedModel back = open_model(dir / "awq");
      EXPECT_EQ(back.kind, "awq");
      at::NoGradGuard no_grad;
      const at::Tensor tokens = at::arange(20).view({1, 20});
      EXPECT_TRUE(
          build_decoder(back, {})->hidden(tokens).equal(build_decoder(open_model(dir / "hf"), {})->hidden(tokens)));
    }
}

TEST_F(Awq, RefusesWhatItCannotHoldAndNamesTheAlternatives) {
  const auto expect = [](const std::string& text, const std::string& reason, const std::string& exact) {
    EXPECT_NE(text.find(reason), std::string::npos) << text;
    EXPECT_NE(text.find("exactly: " + exact), std::string::npos) << text;
  };
  expect(export_refusal(make_model(make_scheme(Method::kSeq, 2, 64))), "half-integers", "hf, compressed-tensors");
  expect(export_refusal(make_model(make_scheme(Method::kLsq, 8, 64))), "4 bits", "hf, compressed-tensors, gptq");
  const quant::Scheme four = make_scheme(Method::kLsq, 4, 64);
  expect(refusal([&] {
           check_exact(format("awq"), {{"a", four}, {"b", make_scheme(Method::kLsq, 4, -1)}}, at::kBFloat16);
         }),
         "one group_size", "hf, compressed-tensors");
  expect(refusal([&] {
           check_exact(format("awq"), {{"a", four, 12, 64}}, at::kBFloat16);
         }),
         "eight share a word", "hf, compressed-tensors");
  check_exact(format("awq"), {{"a", four, 16, 64}, {"b", make_scheme(Method::kLsqAsymmetric, 2, 64), 16, 64}},
              at::kBFloat16);
}

TEST_F(Awq, DamagedFilesAreUserErrors) {
  export_model(make_model(make_scheme(Method::kLsqAsymmetric, 4, 64)), format("awq"), dir / "good", false);
  const auto good = nlohmann::json::parse(test::read_file(dir / "good/config.json"));
  std::map<std::string, at::Tensor> tensors = read_tensors(dir / "good");
  EXPECT_EQ(open_refusal(good, tensors), "");
  const std::string module = "model.layers.0.mlp.up_proj";
  const std::vector<Damaged> damages = {{".qweight", tensors[module + ".qweight"].to(at::kLong), ".qweight: expected"},
                                        {".qweight", tensors[module + ".qweight"].slice(0, 0, 100), "whole groups"},
                                        {".qweight", tensors[module + ".qweight"].slice(1, 0, 3), ".qzeros: expected"},
                                        {".qweight", at::zeros({0, 8}, at::kInt), ".qweight: expected"},
                                        {".qweight", at::zeros({16}, at::kInt), ".qweight: expected"},
                                        {".qzeros", tensors[module + ".qzeros"].slice(0, 0, 1), ".qzeros: expected"},
                                        {".scales", tensors[module + ".scales"].t().contiguous(), ".scales: expected"},
                                        {".scales", tensors[module + ".scales"].to(at::kFloat), ".scales: expected"}};
  expect_refusals(
      good, tensors, module, damages,
      {{"bits", 8}, {"bits", "four"}, {"group_size", 0}, {"group_size", 48}, {"version", "gemv"}, {"version", 1}});
}

}  // namespace
}  // namespace satin::exporting
