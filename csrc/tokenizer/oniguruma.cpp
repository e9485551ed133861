// Oniguruma's dialect, as tokenizer.json uses it, in PCRE2's. The two differ in what \s, \w, \h and \p{...} hold (other
// definitions, other versions of Unicode) and in corners of the syntax. What is not known to mean the same is refused.
#include <array>
#include <cctype>
#include <set>
#include <string>
#include <string_view>

#include "core/error.h"
#include "tokenizer/json_node.h"
#include "tokenizer/regex.h"

namespace satin::tokenizer {
namespace {

// White_Space. PCRE2's \s has U+180E besides.
constexpr const char* kSpace =
    R"(\x{9}-\x{d} \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr const char* kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e})"
    R"(\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
// Alphabetic, M, Nd and Pc; and the Latin-1 No characters, which Oniguruma counts in.
constexpr std::array<const char*, 5> kWordCategories{"L", "M", "Nd", "Nl", "Pc"};
constexpr const char* kWordOthers =
    R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";

struct Addition {
  std::string_view category;
  const char* characters;
};
// Characters of Unicode 15, 15.1 and 16, which Oniguruma 6.9.10 knows and PCRE2 10.42 does not. A newer PCRE2 that
// knows them already loses nothing.
constexpr Addition kAdditions[] = {
    {"Lu", "\\x{1c89}\\x{a7cb}-\\x{a7cc}\\x{a7da}\\x{a7dc}\\x{10d50}-\\x{10d65}"},
    {"Ll", "\\x{1c8a}\\x{a7cd}\\x{a7db}\\x{10d70}-\\x{10d85}\\x{1df25}-\\x{1df2a}"},
    {"Lm", "\\x{10d4e}\\x{10d6f}\\x{16d40}-\\x{16d42}\\x{16d6b}-\\x{16d6c}\\x{1e030}-\\x{1e06d}\\x{1e4eb}"},
    {"Lo",
     "\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d4d}\\x{10d4f}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}\\x{11380}-\\x{"
     "11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{"
     "11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"
     "\\x{16d43}-\\x{16d6a}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1e4d0}-\\x{1e4ea}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}"
     "\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"},
    {"Mn",
     "\\x{897}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}\\x{113bb}-\\x{113c0}\\x{113ce}\\x{113d0}\\x{"
     "113d2}\\x{113e1}-\\x{113e2}\\x{11f00}-\\x{11f01}\\x{11f36}-\\x{11f3a}\\x{11f40}\\x{11f42}\\x{11f5a}\\x{13440}\\x{"
     "13447}-\\x{13455}\\x{1611e}-\\x{16129}\\x{1612d}-\\x{1612f}\\x{1e08f}\\x{1e4ec}-\\x{1e4ef}\\x{1e5ee}-\\x{1e5ef}"},
    {"Mc",
     "\\x{cf3}\\x{113b8}-\\x{113ba}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113cd}\\x{113cf}\\x{1171e}"
     "\\x{11f03}\\x{11f34}-\\x{11f35}\\x{11f3e}-\\x{11f3f}\\x{11f41}\\x{1612a}-\\x{1612c}"},
    {"Nd",
     "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}\\x{"
     "16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"},
    {"No", "\\x{1d2c0}-\\x{1d2d3}"},
    {"Pd", "\\x{10d6e}"},
    {"Po",
     "\\x{1b4e}-\\x{1b4f}\\x{1b7f}\\x{113d4}-\\x{113d5}\\x{113d7}-\\x{113d8}\\x{11b00}-\\x{11b09}\\x{11be1}\\x{11f43}-"
     "\\x{11f4f}\\x{16d6d}-\\x{16d6f}\\x{1e5ff}"},
    {"Sm", "\\x{10d8e}-\\x{10d8f}"},
    {"So",
     "\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}\\x{31e4}-\\x{31e5}\\x{31ef}\\x{1cc00}-\\x{1ccef}\\x{1cd00}-\\x{1ceb3}\\x{"
     "1f6dc}\\x{1f774}-\\x{1f776}\\x{1f77b}-\\x{1f77f}\\x{1f7d9}\\x{1f8b2}-\\x{1f8bb}\\x{1f8c0}-\\x{1f8c1}\\x{1fa75}-"
     "\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}\\x{1faad}-\\x{1faaf}\\x{1fabb}-\\x{1fabf}\\x{1fac6}\\x{1face}-\\x{"
     "1facf}\\x{1fada}-\\x{1fadc}\\x{1fadf}\\x{1fae8}-\\x{1fae9}\\x{1faf7}-\\x{1faf8}\\x{1fbcb}-\\x{1fbef}"},
    {"Cf", "\\x{13439}-\\x{1343f}"},
    {"Han", "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"},
    {"Hiragana", "\\x{1b132}"},
    {"Katakana", "\\x{1b155}"},
    {"Latin", "\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{1df25}-\\x{1df2a}"},
    {"Cyrillic", "\\x{1c89}\\x{1c8a}\\x{1e030}-\\x{1e06d}\\x{1e08f}"},
    {"Arabic", "\\x{897}\\x{10ec2}-\\x{10ec4}\\x{10efc}-\\x{10eff}"},
    {"Devanagari", "\\x{11b00}-\\x{11b09}"},
};

// Class items that hold exactly Oniguruma's \p{name}; `added` tells whether they are more than PCRE2's own.
std::string property_items(const std::string& name, const JsonNode& where, bool& added) {
  static const std::set<std::string_view> categories{
      "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P",  "Pc", "Pd",
      "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "Cc", "Cf", "Co"};
  static const std::set<std::string_view> scripts{"Arabic",   "Armenian", "Bengali", "Cyrillic", "Devanagari",
                                                  "Georgian", "Greek",    "Han",     "Hangul",   "Hebrew",
                                                  "Hiragana", "Katakana", "Latin",   "Tamil",    "Thai"};
  const bool script = scripts.count(name) > 0;
  if (!script && !categories.count(name))
    where.unsupported("\\p{" + name + "} in a pattern", "general categories such as L, Lu, N, Nd, and common scripts");
  std::string items = script ? "\\p{sc:" + name + "}" : "\\p{" + name + "}";
  added = false;
  for (const Addition& addition : kAdditions) {
    const bool matches = script ? addition.category == name
                                : addition.category.size() == 2 && addition.category.substr(0, name.size()) == name;
    if (!matches) continue;
    items += addition.characters;
    added = true;
  }
  return items;
}

class Translator {
 public:
  Translator(std::string_view pattern, const JsonNode& where) : in_(pattern), where_(where) {}

  std::string translate() {
    if (in_.substr(0, 4) == "(?i)") {
      at_ = 4;
      out_ = "(?i)";
    }
    while (at_ < in_.size()) item();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    where_.fail(cat("the pattern '", in_, "' uses ", what, ", which is not supported"));
  }
  bool starts(std::string_view text) const { return in_.substr(at_, text.size()) == text; }
  char take() {
    if (at_ == in_.size()) refuse("an unfinished escape or class");
    return in_[at_++];
  }

  void item() {
    const char c = take();
    if (c == '\\') {
      escape(false);
    } else if (c == '[') {
      out_ += '[';
      if (starts("^")) out_ += take();
      char_class(0);
      out_ += ']';
    } else if (c == '(') {
      group();
    } else if (c == '{') {
      interval();
    } else {
      out_ += c;
    }
  }

  void group() {
    out_ += '(';
    if (starts("*")) refuse("(*");
    if (!starts("?")) return;
    for (const char* opening : {"?:", "?=", "?!", "?>", "?<=", "?<!", "?i:", "?-i:"}) {
      if (!starts(opening)) continue;
      out_ += opening;
      at_ += std::string_view(opening).size();
      return;
    }
    refuse(cat("the group '(", in_.substr(at_, 3), "'"));
  }

  // {n}, {n,} and {n,m} mean the same in both, but what follows them may not.
  void interval() {
    size_t end = at_;
    while (end < in_.size() && (std::isdigit(static_cast<unsigned char>(in_[end])) || in_[end] == ',')) ++end;
    const std::string_view inside = in_.substr(at_, end - at_);
    if (end == in_.size() || in_[end] != '}' || inside.empty() || inside.find_first_of("0123456789") == inside.npos) {
      if (!inside.empty()) refuse("'{" + std::string(inside) + "'");
      out_ += "\\{";
      return;
    }
    if (inside.front() == ',') refuse("'{,n}'");
    const char after = end + 1 < in_.size() ? in_[end + 1] : ' ';
    if (after == '+') refuse("a quantifier after an interval");
    if (after == '?' && inside.find(',') == inside.npos) refuse("'{n}?'");
    out_ += cat('{', inside, '}');
    at_ = end + 1;
  }

  // Items up to the closing bracket. A nested class that is not negated is a union.
  void char_class(int depth) {
    if (depth > 8) refuse("a class nested too deep");
    if (starts("]")) refuse("a class that starts with ']'");
    while (true) {
      if (starts("&&")) refuse("'&&' in a class");
      const char c = take();
      if (c == ']') return;
      if (c == '\\') {
        escape(true);
      } else if (c == '[') {
        if (starts(":") || starts("^")) refuse(cat("'[", in_[at_], "' in a class"));
        char_class(depth + 1);
      } else {
        out_ += c;
      }
    }
  }

  void emit(const std::string& items, bool negated, bool in_class) {
    if (!in_class) out_ += (negated ? "[^" : "[") + items + "]";
    if (in_class && negated) refuse("a negated property inside a class");
    if (in_class) out_ += items;
  }

  void escape(bool in_class) {
    const char c = take();
    bool added = false;
    switch (c) {
      case 's':
        return emit(kSpace, false, in_class);
      case 'S':
        return in_class ? emit(kNotSpace, false, true) : emit(kSpace, true, false);
      case 'd':
      case 'D':
        return emit(property_items("Nd", where_, added), c == 'D', in_class);
      case 'h':
      case 'H':
        return emit("0-9a-fA-F", c == 'H', in_class);
      case 'w':
      case 'W': {
        std::string items = kWordOthers;
        for (const char* category : kWordCategories) items += property_items(category, where_, added);
        return emit(items, c == 'W', in_class);
      }
      case 'p':
      case 'P':
        return property(c == 'P', in_class);
      case 'x':
        return code_point(starts("{") ? 0 : 2);
      case 'u':
        return code_point(4);
      case 'v':
        out_ += "\\x{b}";
        return;
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        out_ += {'\\', c};
        return;
      case 'A':
      case 'z':
        if (in_class) break;
        out_ += {'\\', c};
        return;
      default:
        break;
    }
    if (std::isalnum(static_cast<unsigned char>(c))) refuse(cat("'\\", c, "'"));
    if (static_cast<unsigned char>(c) < 0x80) out_ += '\\';
    out_ += c;
  }

  void property(bool negated, bool in_class) {
    const size_t end = in_.find('}', at_);
    if (!starts("{") || end == in_.npos) refuse("\\p without {name}");
    std::string name(in_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    if (name.substr(0, 1) == "^") {
      negated = !negated;
      name.erase(0, 1);
    }
    bool added = false;
    const std::string items = property_items(name, where_, added);
    if (negated && !added)
      out_ += "\\P" + items.substr(2);
    else
      emit(items, negated, in_class);
  }

  // \xHH, \uHHHH (num_digits) or \x{H...} (0).
  void code_point(size_t num_digits) {
    const size_t begin = at_ + (num_digits == 0);
    const size_t end = num_digits ? at_ + num_digits : in_.find('}', at_);
    if (end > in_.size() || begin == end) refuse("an unfinished escape");
    const std::string digits(in_.substr(begin, end - begin));
    if (digits.size() > 6 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos)
      refuse("'\\x" + digits + "'");
    if (num_digits == 2 && std::stoul(digits, nullptr, 16) > 0x7f) refuse("a byte above \\x7f");
    out_ += "\\x{" + digits + "}";
    at_ = end + (num_digits == 0);
  }

  std::string_view in_;
  const JsonNode& where_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern, const JsonNode& where) {
  return Translator(pattern, where).translate();
}

}  // namespace satin::tokenizer
