#include "export/gguf_tokenizer.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "export/gguf_keys.h"
#include "export/gguf_pre_tokenizer.h"
#include "io/json_file.h"

namespace satin::exporting::gguf {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kOwn = "satin.tokenizer";
constexpr const char* kInVocabulary = "in_vocabulary";  // of an added token in satin.tokenizer

enum TokenType : int32_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };

json optional_object(const fs::path& path) { return fs::exists(path) ? io::load_json_object(path) : json::object(); }

std::string chat_template(const fs::path& directory, const json& tokenizer_config) {
  if (fs::exists(directory / "chat_template.jinja")) return read_file(directory / "chat_template.jinja");
  const auto found = tokenizer_config.find("chat_template");
  return found != tokenizer_config.end() && found->is_string() ? found->get<std::string>() : "";
}

/// Added tokens that llama.cpp does not find where `tokenizers` does.
void check_added_token(const json& token, const std::string& where) {
  for (const char* flag : {"lstrip", "rstrip", "single_word"})
    if (token.value(flag, false))
      throw UserError(cat(where, ": added token '", token.at("content").get<std::string>(), "' has ", flag,
                          ", which llama.cpp does not do; texts would become other tokens there"));
}

struct Tokens {
  std::vector<std::string> text;
  std::vector<int32_t> type;
  std::vector<bool> known;

  void set(int64_t id, const std::string& token, int32_t kind, const std::string& where) {
    if (id < 0 || id >= static_cast<int64_t>(text.size()))
      throw UserError(cat(where, ": token '", token, "' has id ", id, ", the model has ", text.size(), " tokens"));
    text[id] = token;
    type[id] = kind;
    known[id] = true;
  }
};

/// By id; ids without a token get a name of their own, as llama.cpp wants one for each.
Tokens tokens_of(const json& tokenizer, int64_t vocab_size, const std::string& where) {
  const auto size = static_cast<size_t>(vocab_size);
  Tokens tokens{std::vector<std::string>(size), std::vector<int32_t>(size, kUnused), std::vector<bool>(size)};
  for (const auto& [token, id] : tokenizer.at("model").at("vocab").items())
    tokens.set(id.get<int64_t>(), token, kNormal, where);
  for (const json& token : tokenizer.value("added_tokens", json::array())) {
    check_added_token(token, where);
    tokens.set(token.at("id").get<int64_t>(), token.at("content").get<std::string>(),
               token.value("special", false) ? kControl : kUserDefined, where);
  }
  for (size_t id = 0; id < size; ++id)
    if (!tokens.known[id]) tokens.text[id] = cat("[PAD", id, "]");
  return tokens;
}

std::vector<std::string> merges_of(const json& tokenizer) {
  std::vector<std::string> merges;
  for (const json& merge : tokenizer.at("model").at("merges")) {
    if (!merge.is_string())
      merges.push_back(cat(merge.at(0).get<std::string>(), " ", merge.at(1).get<std::string>()));
    else if (const auto text = merge.get<std::string>(); !text.starts_with("#version"))
      merges.push_back(text);
  }
  return merges;
}

/// What the keys do not say.
json remainder_of(json tokenizer, const tokenizer::Tokenizer& parsed) {
  if (tokenizer.contains("added_tokens"))
    for (json& token : tokenizer["added_tokens"])
      token[kInVocabulary] = tokenizer["model"]["vocab"].contains(token.at("content").get<std::string>());
  tokenizer["model"].erase("vocab");
  tokenizer["model"].erase("merges");
  return {{"tokenizer_json", tokenizer},
          {"bos", parsed.bos_id()},
          {"eos", parsed.eos_id()},
          {"fingerprint", parsed.fingerprint()}};
}

}  // namespace

void add_tokenizer(const fs::path& directory, const models::ModelConfig& config, Header& header) {
  const tokenizer::Tokenizer parsed = tokenizer::Tokenizer::load(directory);  // refuses what it does not do exactly
  const std::string where = (directory / "tokenizer.json").string();
  const auto add = [&](const std::string& key, Value value) { header.keys.emplace_back(key, std::move(value)); };
  const auto add_id = [&](const char* name, int64_t id) {
    if (id >= 0) add(cat("tokenizer.ggml.", name, "_token_id"), static_cast<uint32_t>(id));
  };
  try {
    const json tokenizer = json::parse(read_file(directory / "tokenizer.json"));
    const json tokenizer_config = optional_object(directory / "tokenizer_config.json");
    Tokens tokens = tokens_of(tokenizer, config.vocab_size, where);
    add("tokenizer.ggml.model", std::string("gpt2"));
    add("tokenizer.ggml.pre", pre_tokenizer_name(tokenizer, where));
    add("tokenizer.ggml.tokens", std::move(tokens.text));
    add("tokenizer.ggml.token_type", std::move(tokens.type));
    add("tokenizer.ggml.merges", merges_of(tokenizer));
    add_id("bos", parsed.bos_id() >= 0 ? parsed.bos_id() : config.bos_token_id);
    add_id("eos", parsed.eos_id() >= 0 ? parsed.eos_id() : config.eos_token_id);
    const auto declared = [&](const char* key) -> int64_t {
      const auto token = tokenizer_config.find(key);
      if (token == tokenizer_config.end() || token->is_null()) return -1;
      return parsed.token_to_id(token->is_object() ? token->at("content").get<std::string>()
                                                   : token->get<std::string>());
    };
    const int64_t padding = declared("pad_token");
    add_id("padding", padding >= 0 ? padding : config.pad_token_id);
    add_id("unknown", declared("unk_token"));
    add("tokenizer.ggml.add_bos_token", parsed.adds_bos());
    add("tokenizer.ggml.add_eos_token", parsed.adds_eos());
    if (std::string text = chat_template(directory, tokenizer_config); !text.empty())
      add("tokenizer.chat_template", std::move(text));
    add(kOwn, remainder_of(tokenizer, parsed).dump());
  } catch (const json::exception& error) {
    throw UserError(cat(where, ": ", error.what()));
  }
}

void copy_tokenizer(const Header& from, Header& to) {
  for (const auto& [key, value] : from.keys)
    if (key.starts_with("tokenizer.") || key == kOwn) to.keys.emplace_back(key, value);
}

namespace {

struct Rebuilt {
  json tokenizer;  ///< tokenizer.json
  int32_t bos, eos;
  std::optional<uint32_t> fingerprint;
};

/// From the keys that every file has.
json general_remainder(const Header& header, const std::vector<std::string>& tokens, const std::vector<int32_t>* types,
                       const std::string& where) {
  json tokenizer = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  describe_pre_tokenizer(required_text(header, "tokenizer.ggml.pre", where), tokenizer, where);
  tokenizer["added_tokens"] = json::array();
  for (size_t id = 0; id < tokens.size(); ++id)
    if (types && ((*types)[id] == kControl || (*types)[id] == kUserDefined))
      tokenizer["added_tokens"].push_back({{"id", id},
                                           {"content", tokens[id]},
                                           {"single_word", false},
                                           {"lstrip", false},
                                           {"rstrip", false},
                                           {"normalized", false},
                                           {"special", (*types)[id] == kControl},
                                           {kInVocabulary, (*types)[id] == kUserDefined}});
  json single = json::array({{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}), specials = json::object();
  const auto token = [&](const char* id) {
    const int64_t found = required_integer(header, cat("tokenizer.ggml.", id, "_token_id"), 0,
                                           static_cast<int64_t>(tokens.size()) - 1, where);
    specials[tokens[found]] = {{"id", tokens[found]}, {"ids", {found}}, {"tokens", {tokens[found]}}};
    return json{{"SpecialToken", {{"id", tokens[found]}, {"type_id", 0}}}};
  };
  if (boolean_or(header, "tokenizer.ggml.add_bos_token", adds_bos_by_default(tokenizer), where))
    single.insert(single.begin(), token("bos"));
  if (boolean_or(header, "tokenizer.ggml.add_eos_token", false, where)) single.push_back(token("eos"));
  if (!specials.empty())
    tokenizer["post_processor"] = {
        {"type", "TemplateProcessing"}, {"single", single}, {"pair", json::array()}, {"special_tokens", specials}};
  return tokenizer;
}

Rebuilt rebuild(const Header& header, const std::string& where) {
  if (!header.find("tokenizer.ggml.model"))
    throw UserError(cat(where, ": there is no tokenizer in this file (key tokenizer.ggml.model)"));
  const std::string& kind = required_text(header, "tokenizer.ggml.model", where);
  if (kind != "gpt2")
    throw UserError(cat(where, ": tokenizer.ggml.model is '", kind, "', supported is gpt2 (byte-level BPE)"));
  const auto* tokens = array_of<std::string>(header, "tokenizer.ggml.tokens", where);
  const auto* merges = array_of<std::string>(header, "tokenizer.ggml.merges", where);
  const auto* types = array_of<int32_t>(header, "tokenizer.ggml.token_type", where);
  if (!tokens || !merges || tokens->empty())
    throw UserError(cat(where, ": tokenizer.ggml.tokens or tokenizer.ggml.merges is missing"));
  if (types && types->size() != tokens->size())
    throw UserError(cat(where, ": ", types->size(), " tokenizer.ggml.token_type for ", tokens->size(), " tokens"));

  Rebuilt rebuilt;
  const auto id_of = [&](const char* name) {
    return static_cast<int32_t>(integer_or(header, cat("tokenizer.ggml.", name, "_token_id"), -1, 0,
                                           static_cast<int64_t>(tokens->size()) - 1, where));
  };
  if (header.find(kOwn)) {
    const json own = required_object(header, kOwn, where);
    rebuilt.tokenizer = own.at("tokenizer_json");
    rebuilt.bos = own.at("bos").get<int32_t>();
    rebuilt.eos = own.at("eos").get<int32_t>();
    rebuilt.fingerprint = own.at("fingerprint").get<uint32_t>();
    const auto size = static_cast<int64_t>(tokens->size());
    if (rebuilt.bos < -1 || rebuilt.bos >= size || rebuilt.eos < -1 || rebuilt.eos >= size)
      throw UserError(cat(where, ": ", kOwn, ": bos ", rebuilt.bos, " or eos ", rebuilt.eos, " is no token"));
  } else {
    rebuilt.tokenizer = general_remainder(header, *tokens, types, where);
    rebuilt.bos = id_of("bos");
    rebuilt.eos = id_of("eos");
  }
  json vocabulary = json::object();
  for (size_t id = 0; id < tokens->size(); ++id)
    if (!types || (*types)[id] == kNormal) vocabulary[(*tokens)[id]] = id;
  if (rebuilt.tokenizer.contains("added_tokens"))
    for (json& token : rebuilt.tokenizer["added_tokens"]) {
      if (token.value(kInVocabulary, false)) vocabulary[token.at("content").get<std::string>()] = token.at("id");
      token.erase(kInVocabulary);
    }
  rebuilt.tokenizer["model"]["vocab"] = std::move(vocabulary);
  rebuilt.tokenizer["model"]["merges"] = *merges;
  return rebuilt;
}

/// Texts that are not UTF-8, or not what this file's version of satin.tokenizer holds.
template <class Function>
auto named_errors(const std::string& where, const Function& function) {
  try {
    return function();
  } catch (const json::exception& error) {
    throw UserError(cat(where, ": its tokenizer: ", error.what()));
  }
}

}  // namespace

tokenizer::Tokenizer tokenizer_of(const Header& header, const std::string& where) {
  return named_errors(where, [&] {
    const Rebuilt rebuilt = rebuild(header, where);
    return tokenizer::Tokenizer::parse(rebuilt.tokenizer.dump(), where,
                                       {rebuilt.bos, rebuilt.eos, rebuilt.fingerprint});
  });
}

void write_tokenizer_files(const Header& header, const std::string& where, const fs::path& directory) {
  named_errors(where, [&] {
    const Rebuilt rebuilt = rebuild(header, where);
    const auto& tokens = *array_of<std::string>(header, "tokenizer.ggml.tokens", where);
    json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}};
    config["bos_token"] = rebuilt.bos >= 0 ? json(tokens[rebuilt.bos]) : json();
    config["eos_token"] = rebuilt.eos >= 0 ? json(tokens[rebuilt.eos]) : json();
    const int64_t padding =
        integer_or(header, "tokenizer.ggml.padding_token_id", -1, 0, static_cast<int64_t>(tokens.size()) - 1, where);
    if (padding >= 0) config["pad_token"] = tokens[padding];
    if (const std::string text = text_or(header, "tokenizer.chat_template", "", where); !text.empty())
      config["chat_template"] = text;
    write_file_atomically(directory / "tokenizer.json", rebuilt.tokenizer.dump(1) + "\n");
    write_file_atomically(directory / "tokenizer_config.json", config.dump(2) + "\n");
    return 0;
  });
}

}  // namespace satin::exporting::gguf
