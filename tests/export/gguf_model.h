// What tests of GGUF files share: small random models of any architecture with a byte-level tokenizer.
#pragma once
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "export/format.h"
#include "export/gguf.h"
#include "export/gguf_header.h"
#include "export/packed_format.h"
#include "support/test_support.h"
#include "tokenizer/byte_alphabet.h"

namespace satin::exporting {

class GgufModel : public PackedFormat {
 protected:
  /// 256 bytes, then a few words and three special tokens.
  static nlohmann::json tokenizer_json() {
    nlohmann::json vocabulary = nlohmann::json::object(), merges = nlohmann::json::array();
    int id = 0;
    for (const char32_t c : tokenizer::byte_characters()) {
      std::string text;
      tokenizer::append_code_point(text, c);
      vocabulary[text] = id++;
    }
    for (const auto& [left, right] : std::vector<std::pair<std::string, std::string>>{
             {"t", "h"}, {"th", "e"}, {"\u0120", "the"}, {"e", "r"}, {"1", "2"}}) {
      vocabulary[left + right] = id++;
      merges.push_back({left, right});
    }
    nlohmann::json added = nlohmann::json::array();
    for (const char* text : {"<|bos|>", "<|eos|>", "<word>"})
      added.push_back({{"id", id++},
                       {"content", text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", text[1] == '|'}});
    return {
        {"version", "1.0"},
        {"added_tokens", added},
        {"normalizer", nullptr},
        {"pre_tokenizer",
         {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Digits"}, {"individual_digits", true}},
            {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}}}}},
        {"post_processor",
         {{"type", "TemplateProcessing"},
          {"single",
           {{{"SpecialToken", {{"id", "<|bos|>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
          {"pair", nlohmann::json::array()},
          {"special_tokens", {{"<|bos|>", {{"id", "<|bos|>"}, {"ids", {261}}, {"tokens", {"<|bos|>"}}}}}}}},
        {"decoder", {{"type", "ByteLevel"}}},
        {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}};
  }

  /// Every projection (and, with `all`, the embedding) of this scheme, or dense. `changes` to config.json.
  ShippedModel make_model(const std::optional<quant::Scheme>& scheme,
                          const nlohmann::json& changes = nlohmann::json::object(), int lowest_zero = 0,
                          int highest_zero = 1 << 8, bool all = false) {
    ShippedModel model;
    model.kind = "hf";
    model.directory = dir / "model";
    nlohmann::json& config = model.hf_config;
    config = {{"architectures", {"LlamaForCausalLM"}},
              {"model_type", "llama"},
              {"vocab_size", 270},
              {"hidden_size", 256},
              {"intermediate_size", 512},
              {"num_hidden_layers", 2},
              {"num_attention_heads", 4},
              {"num_key_value_heads", 2},
              {"head_dim", 64},
              {"max_position_embeddings", 256},
              {"rms_norm_eps", 1e-5},
              {"rope_theta", 10000.0},
              {"hidden_act", "silu"},
              {"tie_word_embeddings", true},
              {"dtype", "bfloat16"}};
    if (scheme && scheme->dequant_dtype == quant::Storage::kFloat16) config["dtype"] = "float16";
    config.update(changes);
    model.config = models::parse_model_config(config, "config.json");
    model.dtype = shipped_dtype(model.config);
    test::write_file(model.directory / "config.json", config.dump());
    test::write_file(model.directory / "tokenizer.json", tokenizer_json().dump());
    test::write_file(model.directory / "tokenizer_config.json",
                     R"({"bos_token": "<|bos|>", "eos_token": "<|eos|>", "chat_template": "{{ messages }}"})");
    const models::Decoder decoder(model.config, nn::dense_linear_factory(), {});
    at::NoGradGuard no_grad;
    at::manual_seed(5);
    for (const auto& parameter : decoder.parameters().all()) {
      const bool norm = parameter.name.find("norm") != std::string::npos;
      const at::Tensor value = at::randn(parameter.value.sizes()) * (norm ? .1 : .06) + (norm ? 1 : 0);
      const bool quantized =
          scheme && (parameter.name.ends_with("_proj.weight") || (all && parameter.value.dim() == 2));
      if (!quantized) {
        model.add({parameter.name, value.to(model.dtype)});
        continue;
      }
      quant::QuantizedWeight weight = quant::round_to_nearest(value, *scheme, parameter.name);
      if (scheme->has_zero_point())
        weight.zero_point = at::randint(lowest_zero, std::min(1 << scheme->bits, highest_zero + 1),
                                        weight.zero_point.sizes(), at::kInt);
      model.add({parameter.name, weight});
    }
    return model;
  }

  /// A file without our own keys, as another program would have written it.
  static void strip_own_keys(const fs::path& from, const fs::path& to) {
    const std::string bytes = test::read_file(from);
    gguf::Header header = gguf::parse_header(std::as_bytes(std::span(bytes)), "from");
    const std::string data = bytes.substr(header.data_begin);
    std::erase_if(header.keys, [](const auto& key) { return key.first.starts_with("satin."); });
    test::write_file(to, gguf::format_header(header) + data);
  }

  /// The exact products, as clients that multiply in fp32 see them.
  static at::Tensor exact_values(const ShippedTensor& tensor) {
    if (!tensor.scheme) return tensor.values().to(at::kFloat);
    const quant::QuantizedWeight weight = tensor.quantized();
    const auto levels = quant::levels(weight).view({tensor.shape[0], weight.scale.size(1), -1});
    return (weight.scale.to(at::kFloat).unsqueeze(-1) * levels).view(tensor.shape);
  }

  /// model.safetensors and config.json of these values in fp32.
  static void write_reference(const ShippedModel& model, const fs::path& directory) {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& tensor : model.tensors) tensors.emplace_back(tensor.name, exact_values(tensor));
    fs::create_directories(directory);
    io::write_safetensors(directory / "model.safetensors", tensors);
    nlohmann::json config = model.hf_config;
    config["dtype"] = "float32";
    test::write_file(directory / "config.json", config.dump());
    fs::copy_file(model.directory / "tokenizer.json", directory / "tokenizer.json");
    fs::copy_file(model.directory / "tokenizer_config.json", directory / "tokenizer_config.json");
  }
};

}  // namespace satin::exporting
