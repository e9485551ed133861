// Documents of a text file, one at a time: memory holds one document (one line of .jsonl; the whole of a .txt).
#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config/schema.h"
#include "data/record_template.h"

namespace satin::data {

/// A document's text, UTF-8. `answers` are the byte ranges [begin, end) with a loss when `masked`.
struct Document {
  std::string text;
  bool masked = false;
  std::vector<std::pair<size_t, size_t>> answers;
};

/// Chats are rendered one message after another by a template of {role} and {content}. An answer is all that follows
/// from {content} on in an assistant's message, so that what ends a turn is learned too.
inline constexpr const char* kChatMl = "<|im_start|>{role}\n{content}<|im_end|>\n";  ///< Qwen, SmolLM2
inline constexpr const char* kLlama3Chat = "<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>";
inline constexpr const char* kPlainChat = "<|{role}|>\n{content}\n";  ///< for a tokenizer that has no chat markers

/// What kind of file a source is, by its extension.
enum class SourceKind {
  kJsonLines,  ///< .jsonl, .ndjson
  kText,       ///< .txt: one document; line ends become \n
  kTokens,     ///< .tokens: token_file.h
  kRawTokens,  ///< .bin: little-endian uint16 token ids, nothing else
};
/// Errors: UserError naming the extensions that can be read (and what to do with .gz, .xz, .parquet).
SourceKind source_kind(const config::DataSource& source);
/// source.name, or the file's stem.
std::string source_name(const config::DataSource& source);

class TextSource {
 public:
  /// Reads source.path: .jsonl by `field`, `template` or `format: messages` (a list of {role, content} in `field`,
  /// default "messages"), or .txt. `chat_template` is used for messages when the source has no template of its own.
  /// Errors: UserError for a missing, empty or binary file and for a wrong template.
  explicit TextSource(const config::DataSource& source, const std::string& chat_template = kPlainChat);

  /// The next document, or false at the end. Blank lines are passed over. Invalid UTF-8 in .jsonl becomes U+FFFD, as
  /// Python's errors="replace" makes it (.txt is left to the tokenizer, which does the same).
  /// Errors: UserError with file:line for what is not JSON, lacks the field or has another type, or holds NUL bytes.
  bool next(Document& document);

  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t num_replaced_lines() const { return num_replaced_lines_; }  ///< lines with invalid UTF-8
  const std::set<std::string>& roles() const { return roles_; }        ///< roles seen so far (messages)

 private:
  std::string where() const;
  nlohmann::json parse_line(std::string& line);
  const nlohmann::json& member(const nlohmann::json& record, const std::string& name, const std::string& owner) const;
  std::string text_member(const nlohmann::json& record, const std::string& name, const std::string& owner) const;
  void read_messages(const nlohmann::json& record, Document& document);

  std::filesystem::path path_;
  SourceKind kind_;
  std::string field_;
  bool messages_;
  std::optional<RecordTemplate> template_;
  std::ifstream in_;
  uint64_t line_number_ = 0, bytes_read_ = 0, size_bytes_ = 0, num_replaced_lines_ = 0;
  std::set<std::string> roles_;
};

}  // namespace satin::data
