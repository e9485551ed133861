#include "models/model_config.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/test_support.h"

namespace satin::models {
namespace {
using nlohmann::json;

json base(const std::string& type) {
  return {{"model_type", type},       {"vocab_size", 100},
          {"hidden_size", 64},        {"intermediate_size", 128},
          {"num_hidden_layers", 2},   {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"max_position_embeddings", 2048}};
}

json with(json config, const std::string& changes) {
  config.merge_patch(json::parse(changes));
  return config;
}

TEST(ModelConfig, HasTransformersDefaults) {
  const ModelConfig llama = parse_model_config(base("llama"), "c");
  EXPECT_EQ(llama.head_dim, 16);
  EXPECT_EQ(llama.rms_norm_eps, 1e-6);
  EXPECT_EQ(llama.rope.theta, 10000);
  EXPECT_EQ(llama.dtype, "float32");
  EXPECT_FALSE(llama.tied_embeddings || llama.qkv_bias || llama.output_bias || llama.mlp_bias || llama.qk_norm);
  const ModelConfig qwen2 = parse_model_config(base("qwen2"), "c");
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.output_bias);
  const ModelConfig qwen3 = parse_model_config(base("qwen3"), "c");
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_EQ(qwen3.head_dim, 128);
}

TEST(ModelConfig, ReadsBothSpellingsOfRope) {
  const char* scaling = R"({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                            "original_max_position_embeddings": 512, "rope_type": "llama3"})";
  const ModelConfig old = parse_model_config(
      with(base("llama"), std::string(R"({"rope_theta": 500000.0, "rope_scaling": )") + scaling + "}"), "c");
  json parameters = json::parse(scaling);
  parameters["rope_theta"] = 500000.0;
  const ModelConfig fresh = parse_model_config(with(base("llama"), json{{"rope_parameters", parameters}}.dump()), "c");
  for (const ModelConfig& m : {old, fresh}) {
    EXPECT_EQ(m.rope.type, "llama3");
    EXPECT_EQ(m.rope.theta, 500000);
    EXPECT_EQ(m.rope.factor, 8);
    EXPECT_EQ(m.rope.original_max_position_embeddings, 512);
  }
  const ModelConfig linear =
      parse_model_config(with(base("llama"), R"({"rope_scaling": {"type": "linear", "factor": 2}})"), "c");
  EXPECT_EQ(linear.rope.type, "linear");
  EXPECT_EQ(linear.rope.factor, 2);
}

TEST(ModelConfig, ReadsTokenIdsAndDtype) {
  const ModelConfig m = parse_model_config(
      with(base("llama"), R"({"bos_token_id": 1, "eos_token_id": [5, 7], "torch_dtype": "float16"})"), "c");
  EXPECT_EQ(m.bos_token_id, 1);
  EXPECT_EQ(m.eos_token_id, 5);
  EXPECT_EQ(m.eos_token_ids, (std::vector<int64_t>{5, 7}));
  EXPECT_EQ(m.pad_token_id, -1);
  EXPECT_EQ(m.dtype, "float16");
}

struct Variant {
  const char* type;
  const char* changes;
};

TEST(ModelConfig, AcceptsSwitchedOffFeatures) {
  const Variant kAccepted[] = {
      {"llama", R"({"attention_dropout": 0.0, "pretraining_tp": 1, "rope_scaling": null, "sliding_window": null})"},
      {"llama", R"({"attention_bias": true, "mlp_bias": true, "hidden_act": "silu"})"},
      {"llama", R"({"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 1.0}})"},
      {"mistral", R"({"sliding_window": null})"},
      {"mistral", R"({"sliding_window": 2048})"},
      {"qwen2", R"({"use_sliding_window": false, "sliding_window": 512, "max_window_layers": 1})"},
      {"qwen2", R"({"use_sliding_window": true, "sliding_window": 512, "max_window_layers": 2})"},
      {"qwen3", R"({"layer_types": ["full_attention", "full_attention"], "use_sliding_window": true})"},
      {"qwen3", R"({"attention_bias": true})"},
  };
  for (const Variant& v : kAccepted) {
    json config = base(v.type);
    const json changes = json::parse(v.changes);
    config.update(changes);  // keeps nulls
    EXPECT_NO_THROW(parse_model_config(config, "c")) << v.type << " " << v.changes;
  }
}

struct Refusal {
  const char* type;
  const char* changes;
  std::vector<const char*> message;  ///< all of these are in it
};

TEST(ModelConfig, RefusesByNameWhatItDoesNotDo) {
  const Refusal kRefused[] = {
      {"gpt2", "{}", {"model_type is \"gpt2\"", "llama, mistral, qwen2, qwen3"}},
      {"mixtral", "{}", {"model_type is \"mixtral\""}},
      {"llama", R"({"hidden_act": "gelu"})", {"hidden_act is \"gelu\"", "silu"}},
      {"llama", R"({"pretraining_tp": 2})", {"pretraining_tp is 2"}},
      {"llama", R"({"num_local_experts": 8})", {"num_local_experts is 8", "dense"}},
      {"qwen3", R"({"num_experts": 128})", {"num_experts is 128"}},
      {"llama", R"({"partial_rotary_factor": 0.5})", {"partial_rotary_factor is 0.5"}},
      {"llama",
       R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})",
       {"rope_parameters", "partial_rotary_factor is 0.5"}},
      {"llama", R"({"attn_logit_softcapping": 50.0})", {"attn_logit_softcapping is 50.0"}},
      {"llama", R"({"final_logit_softcapping": 30.0})", {"final_logit_softcapping is 30.0"}},
      {"llama", R"({"embedding_multiplier": 12.0})", {"embedding_multiplier is 12.0"}},
      {"llama", R"({"attention_dropout": 0.1})", {"attention_dropout is 0.1"}},
      {"llama", R"({"layer_types": ["full_attention", "sliding_attention"]})", {"layer_types", "sliding_attention"}},
      {"llama", R"({"sliding_window": 128})", {"sliding_window is 128", "2048"}},
      {"mistral", R"({"sliding_window": 1024})", {"sliding_window is 1024", "max_position_embeddings"}},
      {"mistral", R"({"max_position_embeddings": 32768})", {"sliding_window is absent", "4096"}},
      {"qwen2",
       R"({"use_sliding_window": true, "sliding_window": 512, "max_window_layers": 1})",
       {"sliding_window is 512"}},
      {"mistral", R"({"sliding_window": 4096, "attention_bias": true})", {"attention_bias is true", "mistral"}},
      {"qwen2", R"({"attention_bias": false})", {"attention_bias is false", "qwen2"}},
      {"qwen2", R"({"mlp_bias": true})", {"mlp_bias is true"}},
      {"llama", R"({"rope_scaling": {"type": "yarn", "factor": 4.0}})", {"rope_scaling", "type is \"yarn\"", "llama3"}},
      {"llama", R"({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}})", {"rope_type is \"dynamic\""}},
      {"llama", R"({"rope_scaling": {"rope_type": "longrope", "long_factor": [1]}})", {"long_factor is [1]"}},
      {"llama", R"({"rope_parameters": {"full_attention": {"rope_theta": 1}}})", {"full_attention", "not supported"}},
      {"llama", R"({"rope_scaling": {"rope_type": "linear"}})", {"factor is missing", "linear"}},
      {"llama", R"({"rope_scaling": {"rope_type": "llama3", "factor": 8}})", {"low_freq_factor is missing"}},
      {"llama", R"({"rope_scaling": 3})", {"rope_scaling", "object expected"}},
      {"llama", R"({"rope_theta": 0})", {"rope_theta is 0"}},
      {"llama", R"({"dtype": "float8_e4m3fn"})", {"dtype is \"float8_e4m3fn\"", "bfloat16"}},
      {"llama", R"({"vocab_size": null})", {"vocab_size is missing"}},
      {"llama", R"({"hidden_size": "64"})", {"hidden_size is \"64\"", "integer"}},
      {"llama", R"({"hidden_size": 64.5})", {"hidden_size is 64.5"}},
      {"llama", R"({"hidden_size": -64})", {"hidden_size is -64"}},
      {"llama", R"({"vocab_size": 18446744073709551615})", {"vocab_size is 18446744073709551615"}},
      {"llama", R"({"num_key_value_heads": 3})", {"num_key_value_heads is 3", "num_attention_heads (4)"}},
      {"llama", R"({"num_attention_heads": 6})", {"num_attention_heads is 6", "hidden_size (64)"}},
      {"llama", R"({"head_dim": 15})", {"head_dim is 15", "even"}},
      {"llama", R"({"rms_norm_eps": "small"})", {"rms_norm_eps is \"small\""}},
      {"llama", R"({"tie_word_embeddings": 1})", {"tie_word_embeddings is 1", "true or false"}},
      {"llama", R"({"eos_token_id": [1, "x"]})", {"eos_token_id is [1,\"x\"]"}},
  };
  for (const Refusal& r : kRefused) {
    try {
      parse_model_config(with(base(r.type), r.changes), "dir/config.json");
      ADD_FAILURE() << "accepted: " << r.type << " " << r.changes;
    } catch (const UserError& e) {
      const std::string what = e.what();
      EXPECT_TRUE(what.starts_with("dir/config.json: ")) << what;
      for (const char* part : r.message) EXPECT_NE(what.find(part), std::string::npos) << what << "\nlacks: " << part;
    }
  }
}

TEST(ModelConfig, NamesAFileThatIsMissingOrNotJson) {
  const test::TempDir dir;
  EXPECT_THROW(load_model_config(dir.path()), UserError);
  for (const char* text : {"", "{", "[1, 2]", "\"llama\"", "\xff\xfe"}) {
    test::write_file(dir / "config.json", text);
    try {
      load_model_config(dir.path());
      ADD_FAILURE() << text;
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("config.json"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace satin::models
