#include "data/text_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/nearest.h"

namespace satin::data {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

void check_no_nul(std::string_view text, const std::string& where) {
  if (const size_t at = text.find('\0'); at != std::string_view::npos)
    throw UserError(cat(where, ": expected text, found a NUL byte at byte ", at + 1,
                        " (a binary file, or UTF-16? convert it to UTF-8)"));
}

/// Invalid UTF-8 becomes U+FFFD, one for each maximal part of a sequence (as Python and the Unicode standard do).
std::string replace_invalid_utf8(const std::string& text) {
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
}

/// \r\n and \r become \n, as when Python or an editor opens a text file.
void normalise_line_ends(std::string& text) {
  size_t out = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    text[out++] = text[i] == '\r' ? '\n' : text[i];
  }
  text.resize(out);
}

std::string keys_of(const json& record, std::vector<std::string>& keys) {
  std::string list;
  for (const auto& [key, value] : record.items()) {
    keys.push_back(key);
    if (keys.size() <= 20) list += (list.empty() ? "" : ", ") + key;
  }
  return list.empty() ? "none" : list;
}

}  // namespace

SourceKind source_kind(const config::DataSource& source) {
  std::string extension = fs::path(source.path).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (extension == ".jsonl" || extension == ".ndjson") return SourceKind::kJsonLines;
  if (extension == ".txt") return SourceKind::kText;
  if (extension == ".tokens") return SourceKind::kTokens;
  if (extension == ".bin") return SourceKind::kRawTokens;
  std::string advice;
  if (extension == ".gz" || extension == ".xz" || extension == ".zst" || extension == ".bz2")
    advice = "; decompress it first";
  else if (extension == ".json" || extension == ".parquet" || extension == ".csv" || extension == ".arrow")
    advice = "; convert it to .jsonl first (datasets' to_json does)";
  throw UserError(cat(source.path, ": expected a .jsonl, .ndjson, .txt, .tokens or .bin (uint16 tokens) file", advice));
}

std::string source_name(const config::DataSource& source) {
  return source.name.empty() ? fs::path(source.path).stem().string() : source.name;
}

TextSource::TextSource(const config::DataSource& source, const std::string& chat_template)
    : path_(source.path), kind_(source_kind(source)), field_(source.field), messages_(source.format == "messages") {
  SATIN_CHECK(kind_ == SourceKind::kJsonLines || kind_ == SourceKind::kText, source.path);
  if (!messages_ && source.format != "text")
    throw UserError(cat(source.path, ": format: expected text or messages, found \"", source.format, "\""));
  if (kind_ == SourceKind::kText && (messages_ || !source.template_.empty()))
    throw UserError(
        cat(source.path, ": a .txt file is one document: it takes neither a template nor format: messages"));
  if (messages_) {
    if (field_ == "text") field_ = "messages";
    template_.emplace(source.template_.empty() ? chat_template : source.template_, source.path);
    const std::vector<std::string> fields = template_->fields();
    for (const std::string& name : fields)
      if (name != "role" && name != "content")
        throw UserError(cat(source.path, ": a template for messages takes {role} and {content}, found {", name, "}"));
    if (std::count(fields.begin(), fields.end(), "content") != 1)
      throw UserError(cat(source.path, ": a template for messages needs {content} once"));
  } else if (!source.template_.empty()) {
    template_.emplace(source.template_, source.path);
  }

  if (fs::is_directory(path_)) throw UserError(cat(source.path, ": expected a file, found a directory"));
  in_.open(path_, std::ios::binary);
  if (!in_) throw UserError(cat("cannot open ", source.path, ": ", std::strerror(errno)));
  std::error_code error;
  size_bytes_ = fs::file_size(path_, error);
  if (error) throw UserError(cat("cannot read ", source.path, ": ", error.message()));
  if (size_bytes_ == 0) throw UserError(cat(source.path, ": the file is empty"));
}

std::string TextSource::where() const { return cat(path_.string(), ":", line_number_); }

bool TextSource::next(Document& document) {
  document = {};
  if (kind_ == SourceKind::kText) {
    if (bytes_read_ > 0) return false;
    document.text = read_file(path_);
    bytes_read_ = size_bytes_;
    check_no_nul(document.text, path_.string());
    if (document.text.starts_with(kByteOrderMark)) document.text.erase(0, kByteOrderMark.size());
    normalise_line_ends(document.text);
    return true;
  }
  std::string line;
  while (std::getline(in_, line)) {
    ++line_number_;
    bytes_read_ += line.size() + 1;
    check_no_nul(line, where());
    if (line_number_ == 1 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const json record = parse_line(line);
    if (!record.is_object())
      throw UserError(cat(where(), ": expected a JSON object a line, found ", record.type_name()));
    if (messages_)
      read_messages(record, document);
    else if (template_)
      document.text = template_->render([&](const std::string& name) {
        const json& value = member(record, name, "record");
        return value.is_number() ? value.dump() : text_member(record, name, "record");
      });
    else
      document.text = text_member(record, field_, "record");
    return true;
  }
  if (in_.bad()) throw UserError(cat("cannot read ", path_.string(), ": ", std::strerror(errno)));
  return false;
}

json TextSource::parse_line(std::string& line) {
  for (bool replaced = false;; replaced = true) {
    try {
      return json::parse(line);
    } catch (const json::parse_error& error) {
      if (!replaced) {  // perhaps only its UTF-8 is invalid
        std::string valid = replace_invalid_utf8(line);
        if (valid != line) {
          line = std::move(valid);
          ++num_replaced_lines_;
          continue;
        }
      }
      std::string what = error.what();
      if (const size_t at = what.find("column "); at != std::string::npos) what = what.substr(at);
      throw UserError(cat(where(), ": not valid JSON: ", what, " (one object a line is expected)"));
    }
  }
}

const json& TextSource::member(const json& record, const std::string& name, const std::string& owner) const {
  if (const auto found = record.find(name); found != record.end()) return *found;
  std::vector<std::string> keys;
  const std::string list = keys_of(record, keys);
  throw UserError(
      cat(where(), ": the ", owner, " has no field \"", name, "\"; it has ", list, did_you_mean(name, keys)));
}

std::string TextSource::text_member(const json& record, const std::string& name, const std::string& owner) const {
  const json& value = member(record, name, owner);
  if (!value.is_string())
    throw UserError(cat(where(), ": field \"", name, "\": expected text, found ", value.type_name()));
  return value.get<std::string>();
}

void TextSource::read_messages(const json& record, Document& document) {
  const json& messages = member(record, field_, "record");
  if (!messages.is_array())
    throw UserError(
        cat(where(), ": field \"", field_, "\": expected a list of {role, content}, found ", messages.type_name()));
  document.masked = true;
  size_t index = 0;
  for (const json& message : messages) {
    const std::string owner = cat("message ", index++);
    if (!message.is_object())
      throw UserError(cat(where(), ": ", owner, ": expected {role, content}, found ", message.type_name()));
    const std::string role = text_member(message, "role", owner);
    const std::string content = text_member(message, "content", owner);
    if (roles_.size() < 10 || role == "assistant") roles_.insert(role);
    size_t answer = 0;
    for (const RecordTemplate::Piece& piece : template_->pieces()) {
      if (piece.is_field && piece.text == "content") answer = document.text.size();
      document.text += !piece.is_field ? piece.text : piece.text == "role" ? role : content;
    }
    if (role == "assistant") document.answers.emplace_back(answer, document.text.size());
  }
}

}  // namespace satin::data
