#include "io/model_files.h"

#include <array>

#include "core/error.h"
#include "core/file.h"

namespace satin::io {
namespace fs = std::filesystem;

std::span<const std::string_view> model_file_names() {
  static constexpr std::array<std::string_view, 11> kNames = {
      "config.json",     "generation_config.json",  "tokenizer.json",    "tokenizer_config.json",
      "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
      "merges.txt",      "chat_template.jinja",     "chat_template.json"};
  return kNames;
}

void copy_model_files(const fs::path& from, const fs::path& to) {
  if (!fs::exists(from / "config.json"))
    throw UserError(cat("expected config.json in ", from.string(), ", found none"));
  for (const auto name : model_file_names())
    if (fs::exists(from / name)) write_file_atomically(to / name, read_file(from / name));
}

}  // namespace satin::io
