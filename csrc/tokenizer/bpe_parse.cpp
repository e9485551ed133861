// Reading the "model" of tokenizer.json.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/error.h"
#include "tokenizer/bpe.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/json_node.h"

namespace satin::tokenizer {
namespace {

std::string byte_token(int byte) {
  char token[8];
  std::snprintf(token, sizeof token, "<0x%02X>", byte);
  return token;
}

char32_t first_character(std::string_view text) {
  size_t i = 0;
  return next_code_point(text, i);
}

char32_t last_character(std::string_view text) {
  size_t i = text.size() - 1;
  while (i > 0 && is_continuation(text[i])) --i;
  return next_code_point(text, i);
}

}  // namespace

Bpe Bpe::parse(const JsonNode& model, bool byte_level) {
  if (model.find("type") && model.type() != "BPE") model.unsupported("model type '" + model.type() + "'", "BPE");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!model.string_or(affix, "").empty()) model.unsupported(affix, "null");
  if (const auto dropout = model.find("dropout"); dropout && !(dropout->json().is_number() && dropout->json() == 0))
    model.unsupported("dropout", "null");

  Bpe bpe;
  bpe.byte_level_ = byte_level;
  bpe.byte_fallback_ = model.boolean_or("byte_fallback", false);
  bpe.fuse_unk_ = model.boolean_or("fuse_unk", false);
  bpe.unk_token_ = model.string_or("unk_token", "");
  bpe.read_vocab(model);
  bpe.read_merges(model);
  if (model.boolean_or("ignore_merges", false)) {
    for (const auto& [token, id] : bpe.vocab_) {
      const auto text = byte_level ? spelled_bytes(token) : token;
      if (text) bpe.whole_words_.emplace(*text, id);
    }
  }
  return bpe;
}

void Bpe::read_vocab(const JsonNode& model) {
  const JsonNode vocab = model.at("vocab");
  std::unordered_set<int64_t> ids;
  vocab_.reserve(vocab.object().size());
  for (const auto& [token, value] : vocab.object().items()) {
    if (!value.is_number_integer() || value < 0 || value > kMaxId)
      vocab.fail(cat("the id of '", token, "' is ", value.dump(), ", expected an integer from 0 to ", kMaxId));
    const auto id = value.get<int64_t>();
    if (!ids.insert(id).second) vocab.fail(cat("two tokens have id ", id, ", one of them '", token, "'"));
    vocab_.emplace(token, static_cast<int32_t>(id));
  }
  const auto id_of = [&](const std::string& token) {
    const auto found = vocab_.find(token);
    return found == vocab_.end() ? -1 : found->second;
  };
  all_bytes_ = true;
  for (int b = 0; b < 256; ++b) {
    std::string token;
    if (byte_level_)
      append_code_point(token, byte_characters()[b]);
    else
      token = byte_token(b);
    byte_ids_[b] = id_of(token);
    all_bytes_ &= byte_ids_[b] >= 0;
  }
  if (byte_level_) {
    if (byte_fallback_ && !all_bytes_)
      model.unsupported("byte_fallback with a ByteLevel pre_tokenizer and a vocabulary without all 256 bytes",
                        "either");
    byte_fallback_ = false;
    return;
  }
  basic_ids_.assign(0x10000, -1);
  for (const auto& [token, id] : vocab_) {
    if (token.empty() || char_length(token[0]) != token.size()) continue;
    const char32_t c = first_character(token);
    if (c < basic_ids_.size())
      basic_ids_[c] = id;
    else
      other_ids_[c] = id;
  }
}

void Bpe::read_merges(const JsonNode& model) {
  const JsonNode list = model.at("merges");
  if (!list.json().is_array()) list.items();  // fails by name
  const auto id_of = [&](std::string_view token, size_t rank) {
    const auto found = vocab_.find(token);
    if (found == vocab_.end()) list.fail(cat("merge ", rank, " needs '", token, "', which is not in the vocabulary"));
    return found->second;
  };
  cuttable_ = !byte_level_;
  uint32_t rank = 0;
  for (const auto& merge : list.json()) {
    std::string left, right;
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      if (text.substr(0, 8) == "#version") continue;
      const size_t space = text.find(' ');
      if (space == text.npos || text.find(' ', space + 1) != text.npos)
        list.fail(cat("merge ", rank, " is '", text, "', expected two tokens with one space between them"));
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0];
      right = merge[1];
    } else {
      list.fail(cat("merge ", rank, " is neither a string nor a pair of strings"));
    }
    const int32_t left_id = id_of(left, rank), right_id = id_of(right, rank);
    merges_.set(left_id, right_id, {rank, id_of(left + right, rank)});
    if (cuttable_) add_joint(left, right);
    ++rank;
  }
}

// A merge joins the last character of its left token to the first of its right token. Where no merge joins two
// neighbours, none ever will, so the text can be cut there and its parts encoded (and remembered) on their own.
void Bpe::add_joint(const std::string& left, const std::string& right) {
  for (const std::string* token : {&left, &right}) {
    // Such a merge works on tokens that do not spell the text.
    const bool byte = byte_fallback_ && token->size() == 6 && token->substr(0, 3) == "<0x";
    if (token->empty() || byte || *token == unk_token_) cuttable_ = false;
  }
  if (cuttable_) joints_.set(last_character(left), first_character(right), true);
}

}  // namespace satin::tokenizer
