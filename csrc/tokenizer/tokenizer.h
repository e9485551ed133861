// Hugging Face tokenizer.json: byte-level BPE and SentencePiece-style BPE with byte fallback.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace satin::tokenizer {

/// A token with the bytes of the input text that it came from ([begin, end)).
struct TokenSpan {
  int32_t id;
  size_t begin, end;
};

class Tokenizer {
 public:
  /// Reads tokenizer.json (and tokenizer_config.json, generation_config.json, config.json for BOS and EOS when
  /// present). Throws UserError naming the file and the unsupported component ("pre_tokenizer type 'Metaspace' with
  /// ..."), or what is malformed.
  static Tokenizer load(const std::filesystem::path& directory);
  /// From the text of a tokenizer.json alone.
  static Tokenizer parse(std::string_view json, const std::string& where);
  /// The same, with what the directory of the original would say (see load). Ids are -1 or in the vocabulary.
  struct Declared {
    int32_t bos, eos;
    std::optional<uint32_t> fingerprint;
  };
  static Tokenizer parse(std::string_view json, const std::string& where, const Declared& declared);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Ids of `text` without BOS and EOS; added tokens in the text are recognised. Invalid UTF-8 becomes U+FFFD as
  /// Python's bytes.decode(errors="replace") does, and is counted in invalid_utf8_count().
  std::vector<int32_t> encode(std::string_view text) const;
  /// As encode, with byte offsets into the text (after U+FFFD replacement).
  std::vector<TokenSpan> encode_with_spans(std::string_view text) const;
  /// Text of ids as the tokenizer's decoder defines it. skip_special drops special added tokens.
  std::string decode(const std::vector<int32_t>& ids, bool skip_special = true) const;

  /// Largest id + 1.
  int64_t vocab_size() const;
  int32_t bos_id() const;  ///< -1 when there is none
  int32_t eos_id() const;  ///< -1 when there is none
  bool adds_bos() const;   ///< whether the post_processor's template starts every text with a BOS
  bool adds_eos() const;   ///< and ends it with an EOS
  /// Ids marked special in added_tokens, ascending.
  const std::vector<int32_t>& special_ids() const;
  /// -1 when unknown.
  int32_t token_to_id(const std::string& token) const;
  /// Replacement characters inserted so far by this object.
  uint64_t invalid_utf8_count() const;
  /// CRC-32C of tokenizer.json: names the tokenizer in token files and caches.
  uint32_t fingerprint() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace satin::tokenizer
