#include "quant/policy.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace satin::quant {
namespace {

config::QuantizationRule rule(const std::string& match, const std::string& method, double bits) {
  config::QuantizationRule result;
  result.match = match;
  result.method = method;
  result.bits = bits;
  return result;
}

/// The message of the UserError that f throws.
template <class F>
std::string user_error(const F& f) {
  try {
    f();
  } catch (const UserError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no UserError";
  return "";
}
#define EXPECT_SAYS(message, part) EXPECT_NE((message).find(part), std::string::npos) << (message)

TEST(Policy, TheLastMatchWins) {
  config::Quantization config;
  config.overrides = {rule("model.layers.*.mlp.*", "lsq", 4), rule("*down_proj", "seq", 2),
                      rule("model.layers.1.*", "none", 2)};
  const Policy policy(config);
  EXPECT_EQ(policy.decide("model.layers.0.self_attn.q_proj").scheme->method, Method::kLsqAsymmetric);
  EXPECT_EQ(policy.decide("model.layers.0.mlp.up_proj").scheme->bits, 4);
  EXPECT_EQ(policy.decide("model.layers.0.mlp.down_proj").scheme->method, Method::kSeq);
  const Policy::Decision none = policy.decide("model.layers.1.mlp.down_proj");
  EXPECT_FALSE(none.scheme);
  EXPECT_EQ(none.rule, 2);
  EXPECT_SAYS(none.reason, "overrides[2]");
}

TEST(Policy, BitsOfColumns) {
  config::Quantization config;
  config.overrides = {rule("*.down_proj", "lsq_asymmetric", 4)};
  config.overrides[0].column_bits = {3, 2, 4};
  const auto scheme = Policy(config).decide("model.layers.0.mlp.down_proj").scheme;
  EXPECT_EQ(scheme->column_bits, (std::vector<int>{3, 3, 2, 2, 4, 4})) << "two groups of 64 each";
  EXPECT_EQ(scheme->bits, 4);
  check_fits(*scheme, "m", 384);
  EXPECT_SAYS(user_error([&] { check_fits(*scheme, "m", 512); }),
              "those of m are for 384 inputs, it has 512; give 4, or leave column_bits out");
  EXPECT_SAYS(user_error([&] { check_fits(*scheme, "m", 64); }), "it has 64; leave column_bits out");
  const auto refusal = [&](auto change) {
    config::Quantization changed = config;
    change(changed.overrides[0]);
    return user_error([&] { Policy{changed}; });
  };
  EXPECT_SAYS(refusal([](auto& r) { r.bits = 3; }),
              "quantization.overrides[0].column_bits: expected 2 to 3 bits, which codes are stored in, found 4");
  EXPECT_SAYS(refusal([](auto& r) { r.group_size = -1; }), "expected a group_size that divides 128, found -1");
  EXPECT_SAYS(refusal([](auto& r) { r.group_size = 256; }), "expected a group_size that divides 128, found 256");
  EXPECT_SAYS(refusal([](auto& r) { r.method = "lwc"; }), "method lwc has one number of bits; expected lsq or");
}

TEST(Policy, TheHeadOnlyByAnOverride) {
  config::Quantization config;
  EXPECT_FALSE(Policy(config).decide("lm_head").scheme);
  EXPECT_SAYS(Policy(config).decide("lm_head").reason, "LM head");
  config.overrides = {rule("lm_head", "lsq", 8)};
  EXPECT_EQ(Policy(config).decide("lm_head").scheme->bits, 8);
}

TEST(Policy, EmbeddingsOnlyByName) {
  config::Quantization config;
  EXPECT_SAYS(Policy(config).decide("model.embed_tokens").reason, "embed_tokens");
  config.overrides = {rule("*", "lsq", 4)};
  EXPECT_FALSE(Policy(config).decide("model.embed_tokens").scheme) << "a star is meant for layers";
  config.overrides.push_back(rule("*embed_tokens", "lsq", 8));
  EXPECT_EQ(Policy(config).decide("model.embed_tokens").scheme->bits, 8);
}

TEST(Policy, GlobsThatMatchNothing) {
  const std::vector<std::string> modules = {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj",
                                            "model.layers.0.mlp.down_proj"};
  config::Quantization config;
  config.overrides = {rule("model.layers.*.mlp.*", "lsq", 4)};
  EXPECT_NO_THROW(Policy(config).check_all_match(modules));
  config.overrides.push_back(rule("model.layers.*.mlp.downproj", "lsq", 4));
  std::string message = user_error([&] { Policy(config).check_all_match(modules); });
  EXPECT_SAYS(message, "overrides[1]");
  EXPECT_SAYS(message, "model.layers.0.mlp.down_proj");
  config.overrides = {rule("model.layers.0.mlp.upproj", "lsq", 4)};
  EXPECT_SAYS(user_error([&] { Policy(config).check_all_match(modules); }), "model.layers.0.mlp.up_proj");
}

TEST(Policy, RulesThatNoQuantizerHas) {
  const auto message = [](config::QuantizationRule rule) {
    return user_error([&] { (void)scheme_from_rule(rule, "quantization.default"); });
  };
  EXPECT_SAYS(message(rule("", "lqs", 2)), "quantization.default.method");
  EXPECT_SAYS(message(rule("", "lsq", 2.5)), "2.5");
  EXPECT_SAYS(message(rule("", "lsq", 1)), "from 2 to 8");
  EXPECT_SAYS(message(rule("", "lsq", 9)), "from 2 to 8");
  EXPECT_SAYS(message(rule("", "seq", 3)), "seq has 2 bits");
  EXPECT_SAYS(message(rule("", "ternary", 4)), "1.58");
  config::QuantizationRule bad;
  bad.group_size = -2;
  EXPECT_SAYS(message(bad), "group_size");
  bad = {};
  bad.scale_dtype = "float32";
  EXPECT_SAYS(message(bad), "bfloat16 or float16");
  bad = {};
  bad.init = "max";
  EXPECT_SAYS(message(bad), "data, mse or weighted_mse");
  bad = {};
  bad.activations = "int7";
  EXPECT_SAYS(message(bad), "none, int8, int8_static or float8");
  bad = rule("", "onebit", 1);
  bad.group_size = 64;
  EXPECT_SAYS(message(bad), "one value a row");
  bad = rule("", "lwc", 2);
  bad.group_size = 0;
  EXPECT_SAYS(message(bad), "one scale a tensor");

  EXPECT_EQ(scheme_from_rule(rule("", "ternary", 1.58), "x")->bits, 2);
  EXPECT_FALSE(scheme_from_rule(rule("", "none", 77), "x"));
  config::QuantizationRule half;
  half.scale_dtype = "float16";
  half.init = "data";
  const Scheme scheme = *scheme_from_rule(half, "x");
  EXPECT_EQ(scheme.scale_dtype, Storage::kFloat16);
  EXPECT_EQ(scheme.dequant_dtype, Storage::kFloat16);
  EXPECT_EQ(scheme.init, Init::kData);
}

TEST(Policy, GroupSizesThatDivide) {
  EXPECT_NO_THROW(check_fits({Method::kLsq, 2, 64}, "m", 576));
  EXPECT_NO_THROW(check_fits({Method::kLsq, 2, -1}, "m", 577));
  const std::string message = user_error([] { check_fits({Method::kLsq, 2, 128}, "model.q_proj", 576); });
  EXPECT_SAYS(message, "model.q_proj");
  EXPECT_SAYS(message, "8, 16, 32, 64, -1");
}

}  // namespace
}  // namespace satin::quant
