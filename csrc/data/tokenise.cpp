#include "data/tokenise.h"

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/interrupt.h"
#include "core/log.h"

namespace satin::data {
namespace fs = std::filesystem;
using tokenizer::Tokenizer;
namespace {

constexpr uint64_t kVerifyLimitBytes = 4ull << 30;
constexpr int kCacheVersion = 1;  // raise when the same text would give other tokens

/// Shows progress at most ten times a second and stops when a signal asks to.
class Progress {
 public:
  Progress(std::string what, uint64_t total_bytes) : what_(std::move(what)), total_bytes_(total_bytes) {}
  ~Progress() {
    if (shown_) end_progress();
  }
  void update(uint64_t done_bytes, uint64_t num_tokens) {
    if (interrupt_signal())
      throw InterruptedError(cat("stopped while ", what_, "; it starts again from the beginning"));
    const double now_s = seconds_since(start_);
    if (now_s < 1 || now_s - last_s_ < 0.1) return;
    last_s_ = now_s;
    shown_ = true;
    progress(cat(what_, ": ", fixed(100.0 * done_bytes / total_bytes_, 0), " %, ", fixed(num_tokens * 1e-6, 1),
                 " M tokens, ", fixed(done_bytes * 1e-6 / now_s, 1), " MB/s"));
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  std::string what_;
  uint64_t total_bytes_;
  Clock::time_point start_ = Clock::now();
  double last_s_ = 0;
  bool shown_ = false;
};

TokenFileWriter::Options writer_options(const config::DataSource& source, const Tokenizer& tokenizer) {
  return {static_cast<uint64_t>(tokenizer.vocab_size()), tokenizer.fingerprint(), source.format == "messages"};
}

TokeniseSummary tokenise_text(const config::DataSource& source, const Tokenizer& tokenizer, TokenFileWriter& writer,
                              Progress& progress) {
  const bool messages = source.format == "messages";
  const std::string chat_template = chat_template_for(tokenizer);
  if (messages && source.template_.empty())
    log_info(cat(source_name(source), ": chats are written as ", nlohmann::json(chat_template).dump()));
  const uint64_t replaced_before = tokenizer.invalid_utf8_count();
  TokeniseSummary summary;
  TextSource text(source, chat_template);
  for (Document document; text.next(document);) {
    const TokenisedDocument tokenised = tokenise_document(document, tokenizer);
    if (tokenised.ids.empty()) {
      ++summary.num_empty_documents;
    } else {
      writer.add_document(tokenised.ids, tokenised.scored);
      if (document.masked && document.answers.empty()) ++summary.num_unscored_documents;
    }
    progress.update(text.bytes_read(), writer.num_tokens());
  }
  summary.num_replaced_characters = tokenizer.invalid_utf8_count() - replaced_before + text.num_replaced_lines();
  if (messages && writer.num_documents() > 0 && !text.roles().contains("assistant")) {
    std::string roles;
    for (const std::string& role : text.roles()) roles += (roles.empty() ? "" : ", ") + role;
    throw UserError(cat(source.path,
                        ": no message has the role \"assistant\", so there is nothing to learn; roles found: ",
                        roles.empty() ? "none" : roles));
  }
  return summary;
}

void tokenise_raw(const config::DataSource& source, const Tokenizer& tokenizer, TokenFileWriter& writer,
                  Progress& progress) {
  const MappedFile map(source.path);
  if (map.size() == 0) throw UserError(cat(source.path, ": the file is empty"));
  if (map.size() % 2)
    throw UserError(cat(source.path, ": expected uint16 tokens, found an odd number of bytes: ", map.size()));
  const int32_t bos = tokenizer.bos_id(), eos = tokenizer.eos_id();
  std::vector<int32_t> ids;
  bool starts = true, after_eos = false;  // of the tokens collected in ids; of the next token
  const auto flush = [&] {
    if (ids.empty()) return;
    starts ? writer.add_document(ids) : writer.extend_document(ids);
    ids.clear();
    starts = false;
  };
  const std::span<const std::byte> bytes = map.bytes();
  for (size_t i = 0; i < bytes.size(); i += 2) {
    const int32_t id = static_cast<int32_t>(bytes[i]) | static_cast<int32_t>(bytes[i + 1]) << 8;
    const bool boundary = bos >= 0 ? id == bos : after_eos;
    if (boundary || ids.size() >= (1u << 20)) {
      flush();
      starts = boundary || writer.num_documents() == 0;
      progress.update(i, writer.num_tokens());
    }
    ids.push_back(id);
    after_eos = eos >= 0 && id == eos;
  }
  flush();
}

void log_summary(const config::DataSource& source, const TokeniseSummary& s) {
  const std::string name = source_name(source);
  log_info(cat(name, ": ", s.num_documents, " documents, ", s.num_tokens, " tokens"));
  if (s.num_empty_documents)
    log_warning(cat(name, ": ", s.num_empty_documents, " documents without tokens were left out"));
  if (s.num_unscored_documents)
    log_warning(cat(name, ": ", s.num_unscored_documents, " chats have no assistant message; they give no loss"));
  if (s.num_replaced_characters)
    log_warning(cat(name, ": invalid UTF-8 in ", s.num_replaced_characters, " places became U+FFFD"));
}

void verify_if_affordable(const TokenFile& file) {
  std::error_code error;
  if (fs::file_size(file.path(), error) <= kVerifyLimitBytes) file.verify();
}

/// Content and everything else that the tokens depend on; where the file lies and when it was written do not matter.
std::string cache_name(const config::DataSource& source, const Tokenizer& tokenizer) {
  const MappedFile map(source.path);
  const uint32_t content = crc32c(map.bytes());
  const std::string key = nlohmann::json{kCacheVersion,
                                         map.size(),
                                         tokenizer.fingerprint(),
                                         tokenizer.vocab_size(),
                                         tokenizer.bos_id(),
                                         tokenizer.eos_id(),
                                         static_cast<int>(source_kind(source)),
                                         source.field,
                                         source.format,
                                         source.template_}
                              .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::ostringstream name;
  name << fs::path(source.path).stem().string() << "-" << std::hex << std::setfill('0') << std::setw(8) << content
       << std::setw(8) << crc32c(std::as_bytes(std::span(key))) << ".tokens";
  return name.str();
}

}  // namespace

void check_tokenizer(const TokenFile& file, const Tokenizer& tokenizer) {
  const auto& header = file.header();
  const auto vocab_size = static_cast<uint64_t>(tokenizer.vocab_size());
  const bool known = header.tokenizer_fingerprint != 0;
  if (known && header.tokenizer_fingerprint != tokenizer.fingerprint())
    throw UserError(cat(file.path().string(), ": the tokens were made with another tokenizer (its fingerprint is ",
                        header.tokenizer_fingerprint, ", the model's tokenizer.json has ", tokenizer.fingerprint(),
                        "); run `satin tokenize` with this model's tokenizer"));
  if (known ? header.vocab_size != vocab_size : header.vocab_size > vocab_size)
    throw UserError(cat(file.path().string(), ": vocabulary size: expected ", vocab_size, " (the tokenizer's), found ",
                        header.vocab_size, "; run `satin tokenize` with this model's tokenizer"));
}

TokenisedDocument tokenise_document(const Document& document, const Tokenizer& tokenizer) {
  TokenisedDocument out;
  const int32_t bos = tokenizer.bos_id(), eos = tokenizer.eos_id();
  const auto frame = [&](auto& values, auto first, auto last) {
    if (bos >= 0) values.insert(values.begin(), first);
    if (eos >= 0) values.push_back(last);
  };
  if (!document.masked) {
    out.ids = tokenizer.encode(document.text);
    if (!out.ids.empty()) frame(out.ids, bos, eos);
    return out;
  }
  auto answer = document.answers.begin();
  for (const tokenizer::TokenSpan& token : tokenizer.encode_with_spans(document.text)) {
    while (answer != document.answers.end() && answer->second <= token.begin) ++answer;
    out.ids.push_back(token.id);
    out.scored.push_back(answer != document.answers.end() && answer->first < token.end);
  }
  if (out.ids.empty()) return out;
  const bool ends_in_answer = !document.answers.empty() && document.answers.back().second == document.text.size();
  frame(out.ids, bos, eos);
  frame(out.scored, uint8_t{0}, static_cast<uint8_t>(ends_in_answer));
  return out;
}

std::string chat_template_for(const Tokenizer& tokenizer) {
  const auto has = [&](const char* token) { return tokenizer.token_to_id(token) >= 0; };
  if (has("<|im_start|>") && has("<|im_end|>")) return kChatMl;
  if (has("<|start_header_id|>") && has("<|end_header_id|>") && has("<|eot_id|>")) return kLlama3Chat;
  return kPlainChat;
}

TokeniseSummary tokenise_to_file(const config::DataSource& source, const Tokenizer& tokenizer, const fs::path& output) {
  const SourceKind kind = source_kind(source);
  if (kind == SourceKind::kTokens) throw UserError(cat(source.path, ": is a token file already"));
  std::error_code error;
  const uint64_t size_bytes = fs::file_size(source.path, error);
  if (error) throw UserError(cat("cannot open ", source.path, ": ", error.message()));
  if (output.has_parent_path()) fs::create_directories(output.parent_path(), error);
  if (error) throw UserError(cat("cannot create ", output.parent_path().string(), ": ", error.message()));

  TokeniseSummary summary;
  TokenFileWriter writer(output, writer_options(source, tokenizer));
  {
    Progress progress(cat("tokenising ", source_name(source)), std::max<uint64_t>(size_bytes, 1));
    if (kind == SourceKind::kRawTokens)
      tokenise_raw(source, tokenizer, writer, progress);
    else
      summary = tokenise_text(source, tokenizer, writer, progress);
  }
  if (writer.num_tokens() == 0)
    throw UserError(cat(source.path, ": no document has any text (", summary.num_empty_documents, " empty ones)"));
  writer.finish();
  summary.num_documents = writer.num_documents();
  summary.num_tokens = writer.num_tokens();
  log_summary(source, summary);
  return summary;
}

fs::path tokenise(const config::DataSource& source, const Tokenizer& tokenizer, const fs::path& cache_dir) {
  if (source_kind(source) == SourceKind::kTokens) {
    const TokenFile file(source.path);
    check_tokenizer(file, tokenizer);
    verify_if_affordable(file);
    return source.path;
  }
  const fs::path output = cache_dir / cache_name(source, tokenizer);
  if (fs::exists(output)) {
    try {
      const TokenFile file(output);
      check_tokenizer(file, tokenizer);
      verify_if_affordable(file);
      return output;
    } catch (const UserError& error) {
      log_warning(cat("tokenising ", source.path, " again: ", error.what()));
    }
  }
  tokenise_to_file(source, tokenizer, output);
  return output;
}

}  // namespace satin::data
