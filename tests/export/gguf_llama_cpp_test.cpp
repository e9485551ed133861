// The files in llama.cpp: tokens, logits, perplexity and text beside ours.
#include <cmath>
#include <fstream>

#include "eval/tasks.h"
#include "gguf_model.h"

namespace satin::exporting {
namespace {

class LlamaCpp : public GgufModel {
 protected:
  nlohmann::json run_llama_cpp(const nlohmann::json& job) {
    test::write_file(dir / "job.json", job.dump());
    const auto ran = test::run_python("export/gguf_llama_cpp.py " + (dir / "job.json").string());
    const size_t line = ran.output.rfind('\n', ran.output.size() - 2);
    nlohmann::json result =
        nlohmann::json::parse(ran.output.substr(line == std::string::npos ? 0 : line + 1), nullptr, false);
    if (ran.exit_code != 0 || !result.is_object()) throw std::runtime_error(ran.output);
    return result;
  }

  /// Logits [T, V] of the values that a client multiplies with.
  at::Tensor logits(const ShippedModel& model, const at::Tensor& tokens, bool exact) {
    fs::remove_all(dir / "reference");
    write_reference(model, dir / "reference");
    const at::NoGradGuard no_grad;
    auto decoder = build_decoder(exact ? open_model(dir / "reference") : model, {});
    return decoder->logits(decoder->hidden(tokens.view({1, -1})))[0];
  }

  nlohmann::json compare_logits(const ShippedModel& model, const std::string& type, bool exact) {
    fs::remove(dir / "m.gguf");
    export_model(model, *make_gguf_format(type), dir / "m.gguf", false);
    const at::Tensor tokens = at::randint(0, model.config.vocab_size, {60}, at::kInt);
    io::write_safetensors(dir / "logits.safetensors",
                          {{"tokens", tokens}, {"logits", logits(model, tokens.to(at::kLong), exact)}});
    return run_llama_cpp({{"file", (dir / "m.gguf").string()}, {"logits", (dir / "logits.safetensors").string()}});
  }
};

TEST_F(LlamaCpp, ArchitecturesHaveTheirLogits) {
  SATIN_NEEDS_PYTHON("xllamacpp");
  const nlohmann::json cases[] = {nlohmann::json::object(),
                                  {{"tie_word_embeddings", false}, {"num_key_value_heads", 4}},
                                  {{"attention_bias", true}, {"mlp_bias", true}},
                                  {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 4.0}}}},
                                  {{"rope_scaling",
                                    {{"rope_type", "llama3"},
                                     {"factor", 32.0},
                                     {"low_freq_factor", 1.0},
                                     {"high_freq_factor", 4.0},
                                     {"original_max_position_embeddings", 16}}},
                                   {"rope_theta", 500000.0}},
                                  {{"model_type", "mistral"}, {"sliding_window", nullptr}, {"head_dim", 32}},
                                  {{"model_type", "qwen2"}, {"num_key_value_heads", 4}},
                                  {{"model_type", "qwen3"}, {"head_dim", 32}}};
  for (const auto& changes : cases) {
    const auto found = compare_logits(make_model(std::nullopt, changes), "F32", false);
    EXPECT_LT(found["largest_difference"].get<double>(), 1e-4) << changes << found;
    EXPECT_GT(found["largest_logit"].get<double>(), 0.5);
    std::printf("%s: %s\n", changes.dump().c_str(), found.dump().c_str());
  }
}

TEST_F(LlamaCpp, EveryTypeRuns) {
  SATIN_NEEDS_PYTHON("xllamacpp");
  const struct {
    Method method;
    int bits;
    int64_t group_size;
    const char* type;
  } table[] = {{Method::kBinary, 1, 128, "Q1_0"},
               {Method::kTernary, 2, 256, "TQ1_0"},
               {Method::kTernary, 2, 256, "TQ2_0"},
               {Method::kLsq, 2, 64, "Q2_0"},
               {Method::kTernary, 2, 64, "Q2_0"},
               {Method::kLsqAsymmetric, 2, 256, "Q2_K"},
               {Method::kSeq, 2, 256, "Q2_K"},
               {Method::kLsq, 3, 256, "Q3_K"},
               {Method::kLsq, 4, 32, "Q4_0"},
               {Method::kLsqAsymmetric, 3, 64, "Q4_0"},
               {Method::kLsqAsymmetric, 4, 256, "Q4_K"},
               {Method::kLsqAsymmetric, 3, 32, "Q4_1"},
               {Method::kLsq, 5, 32, "Q5_0"},
               {Method::kLsqAsymmetric, 5, 256, "Q5_K"},
               {Method::kLsqAsymmetric, 4, 32, "Q5_1"},
               {Method::kLsq, 6, 256, "Q6_K"},
               {Method::kLsq, 8, 32, "Q8_0"},
               {Method::kLsq, 4, 32, "F16"},
               {Method::kLsq, 4, 32, "BF16"}};
  for (const auto& row : table) {
    const auto storage = std::string(row.type) == "F16" ? quant::Storage::kFloat16 : quant::Storage::kBFloat16;
    const auto model = make_model(make_scheme(row.method, row.bits, row.group_size, storage), nlohmann::json::object(),
                                  1, 3, /*all=*/true);
    const bool dense = std::string(row.type).ends_with("F16");
    const auto found = compare_logits(model, row.type, !dense);
    // Activations are rounded to 8 bits (BF16: to 8 bits of mantissa): noise, of no direction.
    EXPECT_LT(found["mean_log_probability_difference"].get<double>(), 0.03) << row.type << found;
    std::printf("%s %d bits group %ld: %s\n", row.type, row.bits, row.group_size, found.dump().c_str());
  }
}

/// books-29m with every projection rounded to nearest.
class LlamaCppBooks : public LlamaCpp {
 protected:
  ShippedModel rounded(const std::optional<quant::Scheme>& scheme) {
    const ShippedModel books = open_model(test::shared_dir() / "models/books-29m");
    ShippedModel model = books;
    model.tensors.clear();
    for (const auto& tensor : books.tensors)
      if (scheme && tensor.name.ends_with("_proj.weight"))
        model.add({tensor.name, quant::round_to_nearest(tensor.values(), *scheme, tensor.name)});
      else
        model.add(tensor);
    return model;
  }
  std::vector<std::string> texts(const std::string& file, size_t count) {
    std::ifstream in(test::shared_dir() / "data" / file);
    std::vector<std::string> found;
    for (std::string line; found.size() < count && std::getline(in, line);) {
      const auto json = nlohmann::json::parse(line, nullptr, false);
      std::string text = line;
      if (json.is_object())
        for (const char* key : {"text", "question"})
          if (json.contains(key)) text = json[key];
      if (!text.empty()) found.push_back(text);
    }
    return found;
  }
};

/// The vocabulary of books-29m behind every pre-tokenizer that has a name.
TEST_F(LlamaCppBooks, TokensAreOurs) {
  SATIN_NEEDS_SHARED();
  SATIN_NEEDS_PYTHON("xllamacpp");
  std::vector<std::string> all = {"<|end_of_text|>a<|begin_of_text|> b",
                                  "  two  spaces\n\n\t tab\r\n \r\n\r\nx",
                                  "don't WE'LL I'd 'Tis",
                                  "\u00e9\u00fc \u4f60\u597d \U0001f600\u200d caf\u00e9",
                                  "1234567890 3.14 \u0663\u0664 \u2167 12 345",
                                  "a\u00a0b\u3000c",
                                  "<|pad|>!",
                                  "...?!?! (x)\n)"};
  for (const auto& [file, count] : {std::pair{"books-valid.jsonl", 40}, std::pair{"gsm8k-test.jsonl", 300},
                                    std::pair{"wikitext2-raw-test.txt", 800}})
    for (const std::string& text : texts(file, count)) all.push_back(text);
  const fs::path source = test::shared_dir() / "models/books-29m";
  const auto books = nlohmann::json::parse(test::read_file(source / "tokenizer.json"));
  const std::string words = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)",
                    rest = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const auto split = [&](const std::string& numbers) -> nlohmann::json {
    return {{"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Split"},
               {"pattern", {{"Regex", words + numbers + rest}}},
               {"behavior", "Isolated"},
               {"invert", false}},
              {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}}}};
  };
  const nlohmann::json gpt2 = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const struct {
    std::string name;
    nlohmann::json pre_tokenizer, normalizer;
    bool ignore_merges;
  } table[] = {{"smollm", books["pre_tokenizer"], nullptr, false},
               {"gpt-2", gpt2, nullptr, false},
               {"llama-bpe", split(R"(\p{N}{1,3})"), nullptr, true},
               {"smaug-bpe", split(R"(\p{N}{1,3})"), nullptr, false},
               {"qwen2", split(R"(\p{N})"), {{"type", "NFC"}}, false}};
  for (const auto& row : table) {
    SCOPED_TRACE(row.name);
    const ShippedModel model =
        make_model(std::nullopt, {{"vocab_size", 8192}, {"bos_token_id", 0}, {"eos_token_id", 1}});
    auto json = books;
    json["pre_tokenizer"] = row.pre_tokenizer;
    json["normalizer"] = row.normalizer;
    json["model"]["ignore_merges"] = row.ignore_merges;
    test::write_file(model.directory / "tokenizer.json", json.dump());
    test::write_file(model.directory / "tokenizer_config.json", test::read_file(source / "tokenizer_config.json"));
    fs::remove(dir / "m.gguf");
    export_model(model, format("gguf"), dir / "m.gguf", false);
    const auto original = tokenizer::Tokenizer::load(model.directory);
    const auto tokenizer = open_tokenizer(dir / "m.gguf");
    EXPECT_EQ(tokenizer.fingerprint(), original.fingerprint());
    EXPECT_EQ(tokenizer.bos_id(), original.bos_id());
    EXPECT_EQ(tokenizer.eos_id(), original.eos_id());
    EXPECT_EQ(tokenizer.special_ids(), original.special_ids());
    EXPECT_EQ(tokenizer.adds_bos(), original.adds_bos());
    strip_own_keys(dir / "m.gguf", dir / "other.gguf");
    const auto other = open_tokenizer(dir / "other.gguf");
    std::string lines;
    for (const std::string& text : all) {
      const auto ids = original.encode(text);
      EXPECT_EQ(tokenizer.encode(text), ids);
      EXPECT_EQ(tokenizer.decode(ids), original.decode(ids));
      EXPECT_EQ(other.encode(text), ids);
      EXPECT_EQ(other.decode(ids), original.decode(ids));
      lines += nlohmann::json{{"text", text}, {"ids", ids}}.dump() + "\n";
    }
    test::write_file(dir / "texts.jsonl", lines);
    const auto found = run_llama_cpp({{"file", (dir / "m.gguf").string()}, {"texts", (dir / "texts.jsonl").string()}});
    EXPECT_EQ(found["different"], nlohmann::json::array());
    EXPECT_EQ(found["bos"], original.bos_id());
    EXPECT_GT(found["texts"].get<int>(), 1000);
    std::printf("%s: %s texts have the same tokens\n", row.name.c_str(), found["texts"].dump().c_str());
  }
}

TEST_F(GgufModel, TokenizersThatLlamaCppDoesNotHaveAreRefused) {
  const ShippedModel model = make_model(std::nullopt);
  const auto reason = [&](const char* pointer, const nlohmann::json& value) {
    auto json = tokenizer_json();
    json[nlohmann::json::json_pointer(pointer)] = value;
    test::write_file(model.directory / "tokenizer.json", json.dump());
    return refusal([&] { export_model(model, format("gguf"), dir / "m.gguf", false); });
  };
  const nlohmann::json digits = {{"type", "Digits"}, {"individual_digits", true}};
  for (const auto& [found, expected] : std::vector<std::pair<std::string, std::string>>{
           {reason("/pre_tokenizer/pretokenizers/0/individual_digits", false), "no pre-tokenizer of llama.cpp"},
           {reason("/pre_tokenizer/pretokenizers/1/add_prefix_space", true), "no pre-tokenizer of llama.cpp"},
           {reason("/pre_tokenizer", digits), "no pre-tokenizer of llama.cpp"},
           {reason("/pre_tokenizer", nullptr), "no pre-tokenizer of llama.cpp"},
           {reason("/model/ignore_merges", true), "no pre-tokenizer of llama.cpp"},
           {reason("/normalizer", {{"type", "NFKC"}}), "normalizer NFKC"},
           {reason("/added_tokens/2/lstrip", true), "added token '<word>' has lstrip"},
           {reason("/added_tokens/2/id", 300), "has id 300, the model has 270 tokens"}})
    EXPECT_NE(found.find(expected), std::string::npos) << expected << ": " << found;
  EXPECT_FALSE(fs::exists(dir / "m.gguf"));
}

TEST_F(LlamaCppBooks, PerplexityAndTextAreOurs) {
  SATIN_NEEDS_SHARED();
  SATIN_NEEDS_PYTHON("xllamacpp");
  const auto tokenizer = tokenizer::Tokenizer::load(test::shared_dir() / "models/books-29m");
  std::vector<int32_t> tokens;
  for (const std::string& text : texts("books-valid.jsonl", 40))
    for (const int32_t id : tokenizer.encode(text)) tokens.push_back(id);
  tokens.resize(2 * 512);
  std::vector<int32_t> prompt = tokenizer.encode("It was a dark and stormy");
  prompt.insert(prompt.begin(), tokenizer.bos_id());

  const struct {
    std::optional<quant::Scheme> scheme;
    std::string type;
    double tolerance;  // of the perplexity's logarithm
  } table[] = {{std::nullopt, "F32", 2e-4},
               {std::nullopt, "", 2e-3},  // BF16
               {make_scheme(Method::kMinMaxSymmetric, 4, 32), "Q4_0", 5e-3},
               {make_scheme(Method::kMinMaxAsymmetric, 4, 256), "Q4_K", 5e-3},
               {make_scheme(Method::kMinMaxSymmetric, 2, 64), "Q2_0", 1e-2}};
  for (const auto& row : table) {
    const std::string name = row.scheme ? quant::describe(*row.scheme) : "dense";
    const ShippedModel model = rounded(row.scheme);
    fs::remove(dir / "m.gguf");
    export_model(model, *make_gguf_format(row.type), dir / "m.gguf", false);
    fs::remove_all(dir / "reference");
    write_reference(model, dir / "reference");
    const at::NoGradGuard no_grad;
    auto decoder = build_decoder(open_model(dir / "reference"), {});
    const double ours = eval::perplexity(*decoder, tokens, 512).perplexity();
    std::vector<int32_t> greedy = prompt;
    models::KvCache cache;
    for (int i = 0; i < 64; ++i) {
      const at::Tensor ids =
          at::tensor(std::vector<int64_t>(greedy.begin() + cache.length, greedy.end())).view({1, -1});
      greedy.push_back(decoder->logits(decoder->hidden(ids, {.cache = &cache}).select(1, -1)).argmax().item<int>());
    }
    const auto found =
        run_llama_cpp({{"file", (dir / "m.gguf").string()}, {"tokens", tokens}, {"prompt", prompt}, {"count", 64}});
    const double theirs = found["perplexity"].get<double>();
    EXPECT_NEAR(std::log(theirs), std::log(ours), row.tolerance) << name;
    const auto text = found["greedy"].get<std::vector<int32_t>>();
    const auto same = std::mismatch(text.begin(), text.end(), greedy.begin()).first - text.begin();
    if (row.type == "F32") {
      EXPECT_EQ(text, greedy) << found["text"];
    }
    std::printf("%-45s %-5s perplexity ours %.4f llama.cpp %.4f (%+.3f %%), greedy text equal for %ld of 64 tokens\n",
                name.c_str(), row.type.c_str(), ours, theirs, 100 * (theirs / ours - 1),
                static_cast<long>(same) - static_cast<long>(prompt.size()));
  }
}

}  // namespace
}  // namespace satin::exporting
