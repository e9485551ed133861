#include "dist/agreement.h"

#include <cstdio>
#include <sstream>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/line_difference.h"

namespace satin::dist {
namespace {

/// Lengths before texts, so that any text may stand there.
std::string pack(const std::string& host, const std::map<std::string, std::string>& facts) {
  std::ostringstream out;
  const auto put = [&](const std::string& text) { out << text.size() << ' ' << text; };
  put(host);
  for (const auto& [name, text] : facts) {
    put(name);
    put(text);
  }
  return out.str();
}

struct RankFacts {
  std::string host;
  std::map<std::string, std::string> facts;
};

RankFacts unpack(const std::string& packed) {
  std::istringstream in(packed);
  const auto take = [&] {
    size_t size = 0;
    in >> size;
    in.get();
    std::string text(in && size <= packed.size() ? size : 0, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    return text;
  };
  RankFacts rank{take(), {}};
  while (in.peek() != std::char_traits<char>::eof()) {
    const std::string name = take();
    rank.facts[name] = take();
  }
  return rank;
}

/// "line 3: 'a' there, 'b'"; of texts of one line without its number.
std::string first_difference(const std::string& there, const std::string& here) {
  const LineDifference found = first_line_difference(there, here);
  const auto quoted = [](const std::optional<std::string>& line) { return line ? cat("'", *line, "'") : "nothing"; };
  const auto has_lines = [](const std::string& text) {
    const size_t end = text.find('\n');
    return end != std::string::npos && end + 1 < text.size();
  };
  const bool numbered = has_lines(there) || has_lines(here);
  return cat(numbered ? cat("line ", found.number, ": ") : "", quoted(found.left), " there, ", quoted(found.right));
}

constexpr size_t kPiece_bytes = 1 << 20, kPieces = 64;

}  // namespace

std::string file_fact(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return "absent";
  const MappedFile file(path);
  uint32_t checksum = 0;
  if (file.size() <= kPieces * kPiece_bytes) {
    checksum = crc32c(file.bytes());
  } else {
    for (size_t i = 0; i < kPieces; ++i)  // the first and the last among them
      checksum = crc32c(file.bytes().subspan((file.size() - kPiece_bytes) * i / (kPieces - 1), kPiece_bytes), checksum);
  }
  char text[64];
  std::snprintf(text, sizeof text, "%zu bytes, checksum %08x", file.size(), checksum);
  return text;
}

void check_agreement(Communicator& group, const std::string& host, const std::map<std::string, std::string>& facts) {
  const auto all = group.gather(pack(host, facts));
  const RankFacts first = unpack(all[0]);
  for (size_t rank = 1; rank < all.size(); ++rank) {
    const RankFacts other = unpack(all[rank]);
    std::map<std::string, std::string> names = first.facts;
    names.insert(other.facts.begin(), other.facts.end());
    for (const auto& [name, _] : names) {
      const auto here = first.facts.find(name), there = other.facts.find(name);
      const std::string a = here == first.facts.end() ? "" : here->second;
      const std::string b = there == other.facts.end() ? "" : there->second;
      if (a == b) continue;
      throw UserError(cat("rank ", rank, " on ", other.host, " differs from rank 0 on ", first.host, " in ", name, ": ",
                          first_difference(b, a),
                          " on rank 0. All ranks must run the same program with the same configuration and data"));
    }
  }
}

}  // namespace satin::dist
