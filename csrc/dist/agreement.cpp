#include "dist/agreement.h"

#include <cstdio>
#include <sstream>
#include <vector>

#include "core/error.h"
#include "core/file.h"

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

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string line_at(const std::vector<std::string>& lines, size_t i) {
  return i < lines.size() ? cat("'", lines[i], "'") : "nothing";
}

/// "line 3: 'a' versus 'b'"; of texts of one line without its number.
std::string first_difference(const std::string& a, const std::string& b) {
  const auto left = lines_of(a), right = lines_of(b);
  size_t i = 0;
  while (i < left.size() && i < right.size() && left[i] == right[i]) ++i;
  return cat(left.size() > 1 || right.size() > 1 ? cat("line ", i + 1, ": ") : "", line_at(left, i), " there, ",
             line_at(right, i));
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
