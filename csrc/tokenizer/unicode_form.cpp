#include "tokenizer/unicode_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "core/error.h"
#include "tokenizer/utf8.h"

namespace satin::tokenizer {
namespace {

struct CodePoints {
  char32_t first, last;
};

bool within(const CodePoints* begin, const CodePoints* end, char32_t c) {
  const auto range = std::lower_bound(begin, end, c, [](const CodePoints& r, char32_t x) { return r.last < x; });
  return range != end && range->first <= c;
}

// Decompositions and combining classes that came after the tables of the `tokenizers` library (up to Unicode 16).
constexpr CodePoints kUnknownToReference[] = {
    {0x7fd, 0x7fd},     {0x897, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},
    {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},
    {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},   {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x105c9, 0x105c9},
    {0x105e4, 0x105e4}, {0x10781, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba}, {0x10d24, 0x10d27},
    {0x10d69, 0x10d6d}, {0x10eab, 0x10eac}, {0x10efc, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
    {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x11380, 0x113e2}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0},
    {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
    {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16100, 0x1612f}, {0x16d40, 0x16d6a}, {0x16ff0, 0x16ff1},
    {0x1ccd6, 0x1ccf9}, {0x1e030, 0x1e06d}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
    {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1e5ee, 0x1e5ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9}};

constexpr char32_t kFirstCombining = 0x300;

bool is_mark(const utf8proc_property_t& property) {
  return property.category == UTF8PROC_CATEGORY_MN || property.category == UTF8PROC_CATEGORY_MC ||
         property.category == UTF8PROC_CATEGORY_ME;
}

// How a character takes part in normalization.
enum class Role {
  kInert,      // starts a segment and does not change alone
  kStarter,    // starts a segment, may change alone
  kFollower,   // may combine with, or be reordered among, what comes before
  kUntouched,  // a segment of its own that is never changed
};

Role role_of(char32_t c, bool compatibility) {
  if (c < 0xc0 && !(compatibility && c >= 0xa0)) return Role::kInert;
  if (within(std::begin(kUnknownToReference), std::end(kUnknownToReference), c)) return Role::kUntouched;
  const utf8proc_property_t& property = *utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
  if (c >= kFirstCombining && (property.combining_class || is_mark(property) || (c >= 0x1160 && c <= 0x11ff)))
    return Role::kFollower;
  // Half-width marks and the jamo for compatibility decompose to followers.
  if (compatibility && ((c >= 0x3131 && c <= 0x318e) || (c >= 0xff9e && c <= 0xffdc))) return Role::kFollower;
  const bool hangul = c >= 0xac00 && c <= 0xd7a3;
  return property.decomp_seqindex != UINT16_MAX || hangul ? Role::kStarter : Role::kInert;
}

// Replaces `points` by its canonical decomposition in canonical order, composed again when asked to.
void normalize_segment(std::vector<utf8proc_int32_t>& points, UnicodeForm form) {
  const bool compatibility = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  const auto decompose =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> decomposed;
  for (const utf8proc_int32_t point : points) {
    utf8proc_int32_t parts[32];
    int boundary = 0;
    const auto count = utf8proc_decompose_char(point, parts, std::size(parts), decompose, &boundary);
    SATIN_CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(std::size(parts)), "code point ", point);
    decomposed.insert(decomposed.end(), parts, parts + count);
  }
  const auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto run = decomposed.begin(); run != decomposed.end();) {  // runs of non-starters, each sorted by class
    if (combining_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, decomposed.end(), [&](auto c) { return combining_class(c) == 0; });
    std::stable_sort(run, end, [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
  if (form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc) {
    const auto compose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    decomposed.resize(utf8proc_normalize_utf32(decomposed.data(), decomposed.size(), compose));
  }
  points = std::move(decomposed);
}

}  // namespace

Text normalize(const Text& text, UnicodeForm form) {
  const bool compatibility = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  const std::string_view bytes = text.bytes();
  TextRewriter rewriter(text);
  std::vector<utf8proc_int32_t> points;
  std::string segment;
  size_t copied = 0;  // bytes before it are in the rewriter
  for (size_t i = 0; i < bytes.size();) {
    const size_t begin = i;
    const char32_t first = next_code_point(bytes, i);
    const Role role = role_of(first, compatibility);
    if (role == Role::kUntouched) continue;
    points.assign(1, static_cast<utf8proc_int32_t>(first));
    while (i < bytes.size() && static_cast<unsigned char>(bytes[i]) >= 0xcc) {  // 0xcc: lead byte of U+0300
      size_t next = i;
      const char32_t c = next_code_point(bytes, next);
      if (role_of(c, compatibility) != Role::kFollower) break;
      points.push_back(static_cast<utf8proc_int32_t>(c));
      i = next;
    }
    if (role == Role::kInert && points.size() == 1) continue;
    normalize_segment(points, form);
    segment.clear();
    for (const auto point : points) append_code_point(segment, static_cast<char32_t>(point));
    if (segment == bytes.substr(begin, i - begin)) continue;
    rewriter.copy(copied, begin);
    rewriter.replace(begin, i, segment);
    copied = i;
  }
  if (copied == 0) return text;
  rewriter.copy(copied, bytes.size());
  return rewriter.finish();
}

Text lowercase(const Text& text) {
  const std::string_view bytes = text.bytes();
  TextRewriter rewriter(text);
  std::string lower;
  for (size_t i = 0; i < bytes.size();) {
    const size_t begin = i;
    const char32_t c = next_code_point(bytes, i);
    lower.clear();
    if (c == 0x130) {
      lower = "i\xcc\x87";
    } else {
      append_code_point(lower, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
    rewriter.replace(begin, i, lower);
  }
  return rewriter.finish();
}

bool is_white_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_word_character(char32_t c) {
  static constexpr CodePoints kOthers[] = {
      {0x200c, 0x200d}, {0x24b6, 0x24e9}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}};
  const utf8proc_property_t& property = *utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
  switch (property.category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return is_mark(property) || within(std::begin(kOthers), std::end(kOthers), c);
  }
}

}  // namespace satin::tokenizer
