#include "data/record_template.h"

#include "core/error.h"

namespace satin::data {

RecordTemplate::RecordTemplate(std::string_view text, const std::string& where) {
  const auto fail = [&](size_t position, const char* what) {
    throw UserError(cat(where, ": template \"", text, "\", character ", position + 1, ": ", what,
                        " (write {field}, and {{ or }} for a brace)"));
  };
  std::string literal;
  const auto end_literal = [&] {
    if (!literal.empty()) pieces_.push_back({false, std::move(literal)});
    literal.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char next = i + 1 < text.size() ? text[i + 1] : '\0';
    if (text[i] == '\\' && (next == 'n' || next == 't' || next == '\\')) {
      literal += next == 'n' ? '\n' : next == 't' ? '\t' : '\\';
      ++i;
    } else if ((text[i] == '{' || text[i] == '}') && next == text[i]) {
      literal += text[i++];
    } else if (text[i] == '}') {
      fail(i, "} without {");
    } else if (text[i] == '{') {
      const size_t end = text.find_first_of("{}", i + 1);
      if (end == std::string_view::npos || text[end] != '}') fail(i, "{ without }");
      if (end == i + 1) fail(i, "a field without a name");
      end_literal();
      pieces_.push_back({true, std::string(text.substr(i + 1, end - i - 1))});
      i = end;
    } else {
      literal += text[i];
    }
  }
  end_literal();
  if (fields().empty()) fail(0, "no {field}: every document would be the same");
}

std::vector<std::string> RecordTemplate::fields() const {
  std::vector<std::string> names;
  for (const Piece& piece : pieces_)
    if (piece.is_field) names.push_back(piece.text);
  return names;
}

std::string RecordTemplate::render(const std::function<std::string(const std::string&)>& value) const {
  std::string out;
  for (const Piece& piece : pieces_) out += piece.is_field ? value(piece.text) : piece.text;
  return out;
}

}  // namespace satin::data
