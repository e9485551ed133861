// The files beside the weights that make a directory a model: its architecture and its tokenizer.
#pragma once
#include <filesystem>
#include <span>
#include <string_view>

namespace satin::io {

/// config.json, tokenizer.json and their companions, as transformers names them.
std::span<const std::string_view> model_file_names();

/// Copies those that exist (config.json must). Files of the same name in `to` are replaced. Throws UserError.
void copy_model_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace satin::io
