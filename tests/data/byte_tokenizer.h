// A tokenizer that anyone can run in their head: a token is a byte, and its id is the byte's value.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/test_support.h"
#include "tokenizer/tokenizer.h"

namespace satin::data {

inline constexpr int32_t kBos = 256, kEos = 257, kFirstMarker = 258;

/// Writes tokenizer.json and tokenizer_config.json into `directory`: byte-level BPE without merges, <s>, </s> and
/// `markers`.
inline void write_byte_tokenizer(const std::filesystem::path& directory, bool with_bos_eos = true,
                                 const std::vector<std::string>& markers = {}) {
  const auto utf8 = [](int code) {
    return code < 0x80 ? std::string(1, static_cast<char>(code))
                       : std::string{static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
  };
  nlohmann::json vocab;
  int next_code = 256;  // GPT-2's table: printable bytes are themselves, the others follow from U+0100 on
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    vocab[utf8(printable ? byte : next_code++)] = byte;
  }
  std::vector<std::string> added = {"<s>", "</s>"};
  added.insert(added.end(), markers.begin(), markers.end());
  nlohmann::json added_tokens = nlohmann::json::array();
  for (size_t i = 0; i < added.size(); ++i) {
    vocab[added[i]] = 256 + i;
    added_tokens.push_back({{"id", 256 + i},
                            {"content", added[i]},
                            {"single_word", false},
                            {"lstrip", false},
                            {"rstrip", false},
                            {"normalized", false},
                            {"special", true}});
  }
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const nlohmann::json tokenizer = {{"version", "1.0"},
                                    {"truncation", nullptr},
                                    {"padding", nullptr},
                                    {"added_tokens", added_tokens},
                                    {"normalizer", nullptr},
                                    {"pre_tokenizer", byte_level},
                                    {"post_processor", nullptr},
                                    {"decoder", byte_level},
                                    {"model",
                                     {{"type", "BPE"},
                                      {"dropout", nullptr},
                                      {"unk_token", nullptr},
                                      {"continuing_subword_prefix", nullptr},
                                      {"end_of_word_suffix", nullptr},
                                      {"fuse_unk", false},
                                      {"byte_fallback", false},
                                      {"ignore_merges", false},
                                      {"vocab", vocab},
                                      {"merges", nlohmann::json::array()}}}};
  nlohmann::json config = nlohmann::json::object();
  if (with_bos_eos) config = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  test::write_file(directory / "tokenizer.json", tokenizer.dump());
  test::write_file(directory / "tokenizer_config.json", config.dump());
}

inline tokenizer::Tokenizer byte_tokenizer(bool with_bos_eos = true, const std::vector<std::string>& markers = {}) {
  const test::TempDir dir;
  write_byte_tokenizer(dir.path(), with_bos_eos, markers);
  return tokenizer::Tokenizer::load(dir.path());
}

}  // namespace satin::data
