#include "train/allocation_data.h"

#include "core/error.h"
#include "data/text_source.h"

namespace satin::train {

std::vector<Question> read_questions(const config::Config& config, const tokenizer::Tokenizer& tokenizer,
                                     size_t limit) {
  std::vector<Question> questions;
  const std::string& marker = config.allocate.answer_after;
  for (const config::DataSource& source : config.allocate.reasoning) {
    data::TextSource text(source);
    data::Document document;
    size_t read = 0;
    while (read < limit && text.next(document)) {
      const size_t at = document.text.find(marker);
      if (at == std::string::npos) continue;
      Question question;
      question.first_answer = 0;
      if (tokenizer.bos_id() >= 0) question.ids.push_back(tokenizer.bos_id());
      for (const auto& span : tokenizer.encode_with_spans(document.text)) {
        if (question.first_answer == 0 && span.begin >= at + marker.size()) question.first_answer = question.ids.size();
        question.ids.push_back(span.id);
      }
      if (question.first_answer == 0) continue;  // nothing follows
      questions.push_back(std::move(question));
      ++read;
    }
    if (read == 0)
      throw UserError(cat("allocate.reasoning: no document of ", source.path, " has an answer after \"", marker,
                          "\"; set allocate.answer_after to what stands before answers there"));
  }
  return questions;
}

}  // namespace satin::train
