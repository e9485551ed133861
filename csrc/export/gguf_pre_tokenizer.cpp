#include "export/gguf_pre_tokenizer.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/log.h"

namespace satin::exporting::gguf {
namespace {

using nlohmann::json;

// Steps as this file spells them: a regular expression that is split at, or one of these.
constexpr const char* kDigits = "Digits";   // each number a piece
constexpr const char* kGpt2 = "ByteLevel";  // the pattern of GPT-2
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Known {
  const char* name;
  std::vector<std::string> steps;
  bool ignore_merges;  ///< words of the vocabulary are taken whole
  bool nfc;            ///< such tokenizers normalize, llama.cpp does not
  bool adds_bos;
};
/// Source: llama.cpp's src/llama-vocab.cpp; the last rows are names that only reading knows.
const std::vector<Known>& known() {
  static const std::vector<Known> rows = {{"gpt-2", {kGpt2}, false, false, false},
                                          {"smollm", {kDigits, kGpt2}, false, false, false},
                                          {"llama-bpe", {kLlama3}, true, false, true},
                                          {"smaug-bpe", {kLlama3}, false, false, false},
                                          {"qwen2", {kQwen2}, false, true, false},
                                          {"llama3", {kLlama3}, true, false, true},
                                          {"llama-v3", {kLlama3}, true, false, true},
                                          {"dbrx", {kLlama3}, false, false, false},
                                          {"deepseek-r1-qwen", {kQwen2}, false, true, false},
                                          {"starcoder", {kDigits, kGpt2}, false, false, false},
                                          {"refact", {kDigits, kGpt2}, false, false, false}};
  return rows;
}

/// Adds the steps of a component; false for one that no row has.
bool add_steps(const json& component, std::vector<std::string>& steps, int depth = 0) {
  const std::string type = component.value("type", "");
  if (type == "Sequence" && depth < 4)
    return std::ranges::all_of(component.at("pretokenizers"),
                               [&](const json& item) { return add_steps(item, steps, depth + 1); });
  if (type == "Digits" && component.value("individual_digits", false)) {
    steps.push_back(kDigits);
    return true;
  }
  if (type == "ByteLevel" && !component.value("add_prefix_space", true)) {
    if (component.value("use_regex", true)) steps.push_back(kGpt2);
    return true;
  }
  if (type == "Split" && component.value("behavior", "") == "Isolated" && !component.value("invert", false) &&
      component.at("pattern").contains("Regex")) {
    steps.push_back(component.at("pattern").at("Regex").get<std::string>());
    return true;
  }
  return false;
}

}  // namespace

std::string pre_tokenizer_name(const json& tokenizer, const std::string& where) {
  const auto normalizer = tokenizer.find("normalizer");
  if (normalizer != tokenizer.end() && !normalizer->is_null()) {
    if (normalizer->value("type", "") != "NFC")
      throw UserError(cat(where, ": normalizer ", normalizer->value("type", ""),
                          ": llama.cpp's BPE has none; texts would become other tokens there"));
    log_warning(
        "the tokenizer normalizes text to NFC, which llama.cpp does not: texts in other forms become other "
        "tokens there");
  }
  const json model = tokenizer.at("model");
  const bool ignore_merges =
      model.contains("ignore_merges") && model["ignore_merges"].is_boolean() && model["ignore_merges"].get<bool>();
  const auto pre_tokenizer = tokenizer.find("pre_tokenizer");
  std::vector<std::string> steps;
  if (pre_tokenizer != tokenizer.end() && !pre_tokenizer->is_null() && add_steps(*pre_tokenizer, steps))
    for (const Known& row : known())
      if (row.steps == steps && row.ignore_merges == ignore_merges) return row.name;
  std::string names;
  for (size_t i = 0; i < 5; ++i) names += cat(names.empty() ? "" : ", ", known()[i].name);
  throw UserError(cat(where, ": no pre-tokenizer of llama.cpp is known to cut text as this one does (",
                      pre_tokenizer == tokenizer.end() ? "none" : pre_tokenizer->dump().substr(0, 300),
                      "); expected byte-level BPE that cuts as one of: ", names,
                      ". Another name would silently change tokens"));
}

void describe_pre_tokenizer(const std::string& name, json& tokenizer, const std::string& where) {
  for (const Known& row : known()) {
    if (name != row.name) continue;
    json sequence = json::array();
    for (const std::string& step : row.steps) {
      if (step == kDigits)
        sequence.push_back({{"type", "Digits"}, {"individual_digits", true}});
      else if (step != kGpt2)
        sequence.push_back(
            {{"type", "Split"}, {"pattern", {{"Regex", step}}}, {"behavior", "Isolated"}, {"invert", false}});
    }
    sequence.push_back({{"type", "ByteLevel"},
                        {"add_prefix_space", false},
                        {"trim_offsets", true},
                        {"use_regex", row.steps.back() == kGpt2}});
    tokenizer["normalizer"] = row.nfc ? json{{"type", "NFC"}} : json();
    tokenizer["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", sequence}};
    tokenizer["decoder"] = {
        {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
    tokenizer["model"] = {{"type", "BPE"}, {"byte_fallback", false}, {"ignore_merges", row.ignore_merges}};
    return;
  }
  std::string names;
  for (const Known& row : known()) names += cat(names.empty() ? "" : ", ", row.name);
  throw UserError(cat(where, ": tokenizer.ggml.pre is '", name, "', known are ", names));
}

bool adds_bos_by_default(const json& tokenizer) { return tokenizer.at("model").value("ignore_merges", false); }

}  // namespace satin::exporting::gguf
