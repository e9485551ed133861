// What tests of formats with packed codes share: a random model of one scheme, and refusals as text.
#pragma once
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>
#include <optional>

#include "core/error.h"
#include "export/format.h"
#include "support/test_support.h"

namespace satin::exporting {

using quant::Method;

inline quant::Scheme make_scheme(Method method, int bits, int64_t group_size,
                                 quant::Storage storage = quant::Storage::kBFloat16) {
  quant::Scheme scheme;
  scheme.method = method;
  scheme.bits = bits;
  scheme.group_size = group_size;
  scheme.scale_dtype = scheme.dequant_dtype = storage;
  scheme.init = quant::Init::kData;
  return scheme;
}

class PackedFormat : public testing::Test {
 protected:
  test::TempDir dir;
  bool tied = true;    ///< whether the head of made models is the embedding
  bool biases = true;  ///< made models are Qwen2, else Llama
  /// Weights with this in their name have another scheme in made models, or none; the last match wins.
  std::vector<std::pair<std::string, std::optional<quant::Scheme>>> overrides;

  /// A random model of two layers: every projection of this scheme, zero points anywhere from `lowest_zero`.
  ShippedModel make_model(const quant::Scheme& scheme, int lowest_zero = 0, int64_t intermediate_size = 192,
                          int64_t hidden_size = 128) {
    ShippedModel model;
    model.kind = "hf";
    model.directory = dir / "model";
    model.dtype = scheme.dequant_dtype == quant::Storage::kFloat16 ? at::kHalf : at::kBFloat16;
    model.hf_config = {{"architectures", {biases ? "Qwen2ForCausalLM" : "LlamaForCausalLM"}},
                       {"model_type", biases ? "qwen2" : "llama"},
                       {"vocab_size", 96},
                       {"hidden_size", hidden_size},
                       {"intermediate_size", intermediate_size},
                       {"num_hidden_layers", 2},
                       {"num_attention_heads", 4},
                       {"num_key_value_heads", 2},
                       {"max_position_embeddings", 64},
                       {"rms_norm_eps", 1e-5},
                       {"rope_theta", 10000.0},
                       {"hidden_act", "silu"},
                       {"tie_word_embeddings", tied},
                       {"dtype", model.dtype == at::kHalf ? "float16" : "bfloat16"}};
    test::write_file(model.directory / "config.json", model.hf_config.dump());
    model.config = models::parse_model_config(model.hf_config, "config.json");
    const models::Decoder decoder(model.config, nn::dense_linear_factory(), {});
    at::NoGradGuard no_grad;
    at::manual_seed(5);
    for (const auto& parameter : decoder.parameters().all()) {
      const at::Tensor value = at::randn(parameter.value.sizes()) * .1;
      std::optional<quant::Scheme> own;
      if (parameter.name.ends_with("_proj.weight")) own = scheme;
      for (const auto& [part, other] : overrides)
        if (parameter.name.find(part) != std::string::npos) own = other;
      if (!own) {
        model.add({parameter.name, value.to(model.dtype)});
        continue;
      }
      quant::QuantizedWeight weight = quant::round_to_nearest(value, *own, parameter.name);
      if (own->has_zero_point())
        weight.zero_point = at::randint(lowest_zero, 1 << own->bits, weight.zero_point.sizes(), at::kInt);
      model.add({parameter.name, weight});
    }
    return model;
  }

  /// The UserError's text, of exporting or opening.
  template <class Function>
  static std::string refusal(const Function& function) {
    try {
      function();
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }

  static std::map<std::string, at::Tensor> read_tensors(const fs::path& directory) {
    std::map<std::string, at::Tensor> tensors;
    const io::TensorDirectory opened(directory);
    for (const auto& name : opened.names()) tensors[name] = opened.tensor(name).clone();
    return tensors;
  }
  /// The UserError of opening this config.json with these tensors, in dir / "bad"; empty: none.
  std::string open_refusal(const nlohmann::json& config, const std::map<std::string, at::Tensor>& with) {
    std::filesystem::remove_all(dir / "bad");
    test::write_file(dir / "bad/config.json", config.dump());
    io::write_safetensors(dir / "bad/model.safetensors", {with.begin(), with.end()});
    return refusal([&] { build_decoder(open_model(dir / "bad"), {}); });
  }

  struct Damaged {
    std::string part;  ///< of the module
    at::Tensor value;
    std::string text;  ///< that the error has
  };
  /// Each damage, each part of the module that is missing, and each setting of quantization_config is a UserError.
  void expect_refusals(const nlohmann::json& good, const std::map<std::string, at::Tensor>& tensors,
                       const std::string& module, const std::vector<Damaged>& damages,
                       const std::vector<std::pair<std::string, nlohmann::json>>& settings) {
    for (const auto& [part, value, text] : damages) {
      auto changed = tensors;
      changed[module + part] = value.contiguous();
      const std::string found = open_refusal(good, changed);
      EXPECT_NE(found.find(text), std::string::npos) << part << ": " << found;
    }
    for (const char* part : {".qweight", ".qzeros", ".scales"}) {
      auto changed = tensors;
      changed.erase(module + part);
      EXPECT_NE(open_refusal(good, changed), "") << part;
    }
    for (const auto& [key, value] : settings) {
      auto changed = good;
      changed["quantization_config"][key] = value;
      EXPECT_NE(open_refusal(changed, tensors), "") << key << " " << value;
    }
  }

  /// For Python clients to compare with: the model's weights, 30 tokens, and its logits of them.
  static void write_outputs(const ShippedModel& model, const fs::path& file) {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& tensor : model.tensors) tensors.emplace_back(tensor.name, tensor.values());
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = at::arange(30).view({1, 30});
    const auto decoder = build_decoder(model, {});
    tensors.emplace_back("tokens", tokens);
    tensors.emplace_back("logits", decoder->logits(decoder->hidden(tokens)));
    io::write_safetensors(file, tensors);
  }
};

}  // namespace satin::exporting
