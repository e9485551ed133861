#include "eval/tasks.h"

namespace satin::eval {

std::vector<std::pair<size_t, size_t>> find_annotations(const std::string& text) {
  std::vector<std::pair<size_t, size_t>> found;
  for (size_t at = text.find("<<"); at != std::string::npos;) {
    const size_t equals = text.find_first_of("=<>", at + 2);
    const size_t close = equals == std::string::npos ? equals : text.find_first_of("<>", equals + 1);
    if (close != std::string::npos && text[equals] == '=' && text.compare(close, 2, ">>") == 0) {
      found.emplace_back(equals + 1, close);
      at = text.find("<<", close + 2);
    } else {
      at = text.find("<<", at + 1);
    }
  }
  return found;
}

Annotations annotations(models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer,
                        const std::vector<std::string>& documents, const ScoreOptions& options,
                        dist::Communicator& ranks) {
  ScoreOptions with_argmax = options;
  with_argmax.argmax = true;
  std::vector<std::vector<int32_t>> sequences;
  std::vector<std::vector<std::vector<size_t>>> positions;  // of the result's tokens, by document and annotation
  for (const std::string& document : documents) {
    const auto ranges = find_annotations(document);
    if (ranges.empty()) continue;
    std::vector<int32_t> ids;
    if (tokenizer.bos_id() >= 0) ids.push_back(tokenizer.bos_id());
    auto& of_document = positions.emplace_back(ranges.size());
    for (const auto& token : tokenizer.encode_with_spans(document)) {
      for (size_t a = 0; a < ranges.size(); ++a)
        if (token.begin < ranges[a].second && token.end > ranges[a].first) of_document[a].push_back(ids.size());
      ids.push_back(token.id);
    }
    sequences.push_back(std::move(ids));
  }
  Annotations result;
  const std::vector<Scores> scores = score(decoder, sequences, with_argmax, ranks);
  for (size_t d = 0; d < scores.size(); ++d) {
    for (const auto& tokens : positions[d]) {
      bool exact = !tokens.empty();
      for (size_t token : tokens) exact = exact && token > 0 && scores[d].is_argmax[token - 1];
      ++result.total;
      result.exact += exact;
    }
  }
  return result;
}

}  // namespace satin::eval
