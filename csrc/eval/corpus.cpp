#include "eval/corpus.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/interrupt.h"
#include "data/text_source.h"
#include "data/tokenise.h"

namespace satin::eval {
namespace fs = std::filesystem;

config::DataSource parse_data_argument(const std::string& flag, const std::string& argument,
                                       const std::string& record_template, const std::string& name) {
  config::DataSource source;
  source.path = argument;
  source.template_ = record_template;
  source.name = name;
  if (fs::exists(argument)) return source;
  const size_t colon = argument.rfind(':');
  if (colon != std::string::npos && fs::exists(argument.substr(0, colon))) {
    source.path = argument.substr(0, colon);
    source.field = argument.substr(colon + 1);
    return source;
  }
  throw UserError(cat(flag, ": no such file: ", argument));
}

std::vector<int32_t> read_tokens(const config::DataSource& source, const tokenizer::Tokenizer& tokenizer,
                                 size_t max_tokens) {
  std::vector<int32_t> tokens;
  const auto full = [&] { return max_tokens && tokens.size() >= max_tokens; };
  switch (data::source_kind(source)) {
    case data::SourceKind::kTokens: {
      const data::TokenFile file(source.path);
      data::check_tokenizer(file, tokenizer);
      std::vector<int64_t> all(max_tokens ? std::min<uint64_t>(max_tokens, file.num_tokens()) : file.num_tokens());
      file.read_tokens(0, all);
      tokens.assign(all.begin(), all.end());
      break;
    }
    case data::SourceKind::kRawTokens: {
      const MappedFile file(source.path);
      if (file.size() % 2)
        throw UserError(cat(source.path, ": expected 16-bit token ids, found an odd number of bytes"));
      const auto* ids = reinterpret_cast<const uint16_t*>(file.bytes().data());
      tokens.assign(ids, ids + (max_tokens ? std::min(max_tokens, file.size() / 2) : file.size() / 2));
      break;
    }
    default: {
      data::TextSource documents(source);
      for (data::Document document; !full() && documents.next(document);) {
        if (interrupt_signal()) throw InterruptedError(cat("stopped while reading ", source.path));
        if (tokenizer.bos_id() >= 0) tokens.push_back(tokenizer.bos_id());
        const std::vector<int32_t> ids = tokenizer.encode(document.text);
        tokens.insert(tokens.end(), ids.begin(), ids.end());
        if (tokenizer.eos_id() >= 0) tokens.push_back(tokenizer.eos_id());
      }
    }
  }
  for (int32_t id : tokens)
    if (id >= tokenizer.vocab_size())
      throw UserError(
          cat(source.path, ": token ", id, " is outside the tokenizer's vocabulary of ", tokenizer.vocab_size()));
  return tokens;
}

std::string documents_protocol(const config::DataSource& source) {
  const auto kind = data::source_kind(source);
  const bool tokens = kind == data::SourceKind::kTokens || kind == data::SourceKind::kRawTokens;
  return tokens ? "token ids as they are in the file" : "BOS and EOS around each, concatenated";
}

std::vector<std::string> read_documents(const config::DataSource& source, size_t limit) {
  const auto kind = data::source_kind(source);
  if (kind != data::SourceKind::kJsonLines && kind != data::SourceKind::kText)
    throw UserError(cat(source.path, ": this task reads text (.jsonl or .txt), not tokens"));
  std::vector<std::string> documents;
  data::TextSource text(source);
  for (data::Document document; (!limit || documents.size() < limit) && text.next(document);)
    documents.push_back(std::move(document.text));
  return documents;
}

std::vector<Question> read_questions(const config::DataSource& source, size_t limit) {
  std::ifstream in(source.path);
  if (!in) throw UserError(cat("cannot open ", source.path));
  std::vector<Question> questions;
  std::string line;
  for (size_t number = 1; (!limit || questions.size() < limit) && std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = cat(source.path, ":", number);
    const auto record = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (record.is_discarded()) throw UserError(cat(where, ": not valid JSON"));
    questions.push_back(parse_question(record, where));
  }
  if (questions.empty()) throw UserError(cat(source.path, ": no questions"));
  return questions;
}

}  // namespace satin::eval
