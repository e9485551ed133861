// --lossy: what is converted, that what can be kept is kept, and that the figures of the damage are true.
#include "export/nearest.h"

#include "export/packed_format.h"

namespace satin::exporting {
namespace {

class Nearest : public PackedFormat {
 protected:
  static quant::Scheme with_float16_scales(quant::Scheme scheme) {
    scheme.scale_dtype = quant::Storage::kFloat16;
    return scheme;
  }
  /// Exports with --lossy; the values that were written, beside the model's.
  ExportReport export_lossy(const ShippedModel& model, const std::string& name) {
    WriteOptions options;
    options.lossy = true;
    return export_model(model, format(name), dir / "out", true, options);
  }
  static void expect_same_values(const ShippedModel& a, const ShippedModel& b) {
    for (const auto& tensor : a.tensors)
      EXPECT_TRUE(tensor.values().equal(b.find(tensor.name)->values())) << tensor.name;
  }
};

TEST_F(Nearest, GridsThatContainTheLevelsLoseNothing) {
  for (const auto& [scheme, name, bits] : {std::tuple{make_scheme(Method::kSeq, 2, 64), "gptq", 3},
                                           {make_scheme(Method::kSeq, 2, 64), "awq", 4},
                                           {make_scheme(Method::kLsq, 5, 64), "gptq", 8},
                                           {make_scheme(Method::kLsqAsymmetric, 5, 64), "gptq", 8}}) {
    SCOPED_TRACE(cat(quant::describe(scheme), " as ", name));
    const ShippedModel model = make_model(scheme);
    EXPECT_NE(refusal([&] { export_model(model, format(name), dir / "out", true); }).find("--lossy"),
              std::string::npos);
    const ExportReport report = export_lossy(model, name);
    EXPECT_TRUE(report.is_lossy && report.damage.empty());
    const ShippedModel back = open_model(dir / "out");
    EXPECT_EQ(back.find("model.layers.0.mlp.up_proj.weight")->scheme->bits, bits);
    expect_same_values(model, back);
  }
}

TEST_F(Nearest, LayersOfOtherBitsAndGroupsAreWrittenInOneThatHoldsAll) {
  ShippedModel model = make_model(make_scheme(Method::kLsqAsymmetric, 2, 64));
  const ShippedModel four = make_model(make_scheme(Method::kLsqAsymmetric, 4, 32)),
                     row = make_model(make_scheme(Method::kLsqAsymmetric, 3, -1));
  for (const auto& [name, from] :
       {std::pair{"model.layers.0.mlp.up_proj.weight", &four}, {"model.layers.1.self_attn.q_proj.weight", &row}}) {
    model.tensors.erase(model.tensors.find(std::string_view(name)));
    model.add(*from->find(name));
  }
  for (const char* name : {"gptq", "awq"}) {
    EXPECT_TRUE(export_lossy(model, name).damage.empty());
    const ShippedModel back = open_model(dir / "out");
    EXPECT_EQ(back.find("model.layers.1.self_attn.q_proj.weight")->scheme->bits, 4);
    EXPECT_EQ(back.find("model.layers.1.self_attn.q_proj.weight")->scheme->group_size, 32);
    expect_same_values(model, back);
  }
}

TEST_F(Nearest, CoarserGridsRoundAndTheDamageIsMeasured) {
  const ShippedModel model = make_model(make_scheme(Method::kLsq, 8, 64));
  const ExportReport report = export_lossy(model, "awq");
  const ShippedModel back = open_model(dir / "out");
  ASSERT_EQ(report.damage.size(), 7u);  // kinds of projections
  for (const Damage& damage : report.damage) {
    double error = 0, value = 0, largest = 0;
    for (int layer = 0; layer < 2; ++layer)
      for (const char* block : {"self_attn", "mlp"}) {
        const std::string name = cat("model.layers.", layer, ".", block, ".", damage.kind, ".weight");
        if (!model.find(name)) continue;
        const at::Tensor a = model.find(name)->values().to(at::kDouble), b = back.find(name)->values().to(at::kDouble);
        error += (a - b).square().sum().item<double>();
        value += a.square().sum().item<double>();
        largest = std::max(largest, (a - b).abs().max().item<double>());
      }
    EXPECT_EQ(damage.num_layers, 2);
    EXPECT_EQ(damage.num_changed, 2);
    EXPECT_NEAR(damage.max_error, largest, 1e-12);
    EXPECT_NEAR(damage.relative_rms, std::sqrt(error / value), 1e-9);
    EXPECT_GT(damage.relative_rms, .01);
    EXPECT_LT(damage.relative_rms, .2);  // 16 levels of a normal distribution: about .1
  }
  const std::string card = test::read_file(dir / "out/README.md");
  EXPECT_NE(card.find("**lossy**"), std::string::npos) << card;
  EXPECT_NE(card.find("| down_proj | 2 of 2 |"), std::string::npos) << card;
}

TEST_F(Nearest, ScalesBecomeFloat16AndTheRestStays) {
  ShippedModel model = make_model(make_scheme(Method::kLsq, 4, 64));
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  quant::QuantizedWeight weight = model.find(name)->quantized();
  weight.scale[0][0] = 1e-7;  // the model shares it
  const ExportReport report = export_lossy(model, "gptq");
  ASSERT_EQ(report.damage.size(), 1u);
  EXPECT_EQ(report.damage[0].kind, "up_proj");
  EXPECT_EQ(report.damage[0].num_changed, 1);
  const ShippedModel back = open_model(dir / "out");
  const quant::QuantizedWeight read = back.find(name)->quantized();
  EXPECT_EQ(read.scale[0][0].item<double>(), std::ldexp(2, -24));  // 1e-7 is 1.7 of float16's smallest steps
  at::Tensor scales = read.scale.to(at::kFloat).clone(), want = weight.scale.to(at::kFloat).clone();
  scales[0][0] = want[0][0] = 0;
  EXPECT_TRUE(scales.equal(want));
}

TEST_F(Nearest, NothingIsNearASecondValueVectorAndActivationsAreDropped) {
  const std::vector<QuantizedLayer> onebit = {{"a", make_scheme(Method::kOneBit, 1, -1), 64, 64}};
  EXPECT_FALSE(nearest_layers(format("gptq"), onebit, at::kBFloat16));
  EXPECT_EQ(refusal([&] { check_exact(format("gptq"), onebit, at::kBFloat16); }).find("--lossy"), std::string::npos);
  quant::Scheme eight = make_scheme(Method::kLsq, 4, 64);
  eight.activations = quant::Activations::kInt8Static;
  const std::vector<QuantizedLayer> layers = {{"a", eight, 64, 64}};
  EXPECT_EQ(nearest_layers(format("hf"), layers, at::kBFloat16)->at(0).scheme.activations, quant::Activations::kNone);
  EXPECT_EQ(nearest_layers(format("compressed-tensors"), layers, at::kBFloat16)->at(0).scheme.activations,
            quant::Activations::kInt8);

  quant::Scheme scheme = make_scheme(Method::kLsq, 4, 64);
  scheme.activations = quant::Activations::kInt8;
  const ExportReport report = export_lossy(make_model(scheme), "gptq");
  EXPECT_EQ(report.num_activations_changed, 14);
  EXPECT_TRUE(report.damage.empty());
  EXPECT_NE(test::read_file(dir / "out/README.md").find("**lossy**"), std::string::npos);
}

TEST_F(Nearest, RefusalsNameASchemeThatWouldDo) {
  const auto text = [&](const quant::Scheme& scheme, const std::string& name, int64_t out = 128, int64_t in = 128) {
    return refusal([&] { check_exact(format(name), {{"x.up_proj", scheme, out, in}}, at::kBFloat16); });
  };
  const auto expect = [](const std::string& found, const std::string& part) {
    EXPECT_NE(found.find(part), std::string::npos) << found;
  };
  expect(text(make_scheme(Method::kSeq, 2, 64), "gptq"), "gptq would hold x.up_proj as lsq 3 bits group 64");
  expect(text(make_scheme(Method::kLsq, 3, -1), "gptq", 200), "as lsq 4 bits per row");
  expect(text(with_float16_scales(make_scheme(Method::kLsq, 4, 64)), "compressed-tensors"),
         "as lsq 4 bits group 64 bfloat16");
}

TEST_F(Nearest, ConvertKeepsLevelsInEveryEncoding) {
  at::manual_seed(3);
  const at::Tensor values = at::randn({16, 128});
  for (const auto& [from, to] :
       {std::pair{make_scheme(Method::kSeq, 2, 64), make_scheme(Method::kSeq, 2, 32)},
        {make_scheme(Method::kTernary, 2, -1), make_scheme(Method::kTernary, 2, 16)},
        {make_scheme(Method::kBinary, 1, 64), make_scheme(Method::kLsq, 2, 64)},
        {make_scheme(Method::kBitNet, 2, 0), make_scheme(Method::kLsq, 4, 64)},
        {make_scheme(Method::kLsqAsymmetric, 3, 64), make_scheme(Method::kLsq, 4, 32)},
        {make_scheme(Method::kLsqAsymmetric, 4, 64), make_scheme(Method::kLsqAsymmetric, 8, 64)}}) {
    SCOPED_TRACE(cat(quant::describe(from), " to ", quant::describe(to)));
    const quant::QuantizedWeight weight = quant::round_to_nearest(values, from);
    EXPECT_TRUE(quant::levels(convert(weight, to)).equal(quant::levels(weight)));
    EXPECT_TRUE(quant::dequantize(convert(weight, to)).equal(quant::dequantize(weight)));
  }
}

}  // namespace
}  // namespace satin::exporting
