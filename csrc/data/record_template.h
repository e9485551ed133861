// Text with {field} placeholders, filled from one record.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace satin::data {

/// "Question: {question}\nAnswer: {answer}". {{ and }} are literal braces; \n, \t and \\ may be written out, because
/// a shell or a plain YAML scalar leaves them so.
class RecordTemplate {
 public:
  struct Piece {
    bool is_field;
    std::string text;  ///< the field's name, or literal text
  };

  /// Errors: UserError with `where` and the position of a brace without partner, an empty name, or no field at all.
  RecordTemplate(std::string_view text, const std::string& where);

  const std::vector<Piece>& pieces() const { return pieces_; }
  std::vector<std::string> fields() const;  ///< in order, repeated as written
  /// `value` gives a field's text.
  std::string render(const std::function<std::string(const std::string&)>& value) const;

 private:
  std::vector<Piece> pieces_;
};

}  // namespace satin::data
