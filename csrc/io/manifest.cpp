#include "io/manifest.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "dist/together.h"
#include "io/checkpoint.h"
#include "io/json_file.h"
#include "io/problems.h"
#include "io/scheme_json.h"
#include "io/shared_directory.h"

namespace satin::io {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr const char* kManifest = "satin.json";
constexpr int kFormatVersion = 1;

uint32_t checksum(const std::string& text) { return crc32c(std::as_bytes(std::span(text))); }

/// The manifest's own checksum: of everything else in it, in canonical form.
uint32_t checksum_of(json manifest) {
  manifest.erase("crc32c");
  return checksum(manifest.dump());
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos && name.find('\0') == name.npos;
}

}  // namespace

bool is_checkpoint(const fs::path& directory) {
  std::error_code ignored;
  return fs::is_regular_file(directory / kManifest, ignored);
}

void write_manifest(const fs::path& directory, Manifest manifest) {
  std::vector<fs::path> unlisted;
  for (const auto& entry : fs::directory_iterator(directory))
    if (!manifest.files.contains(entry.path().filename().string())) unlisted.push_back(entry.path());
  const auto sums = checksums(unlisted, *dist::Communicator::alone());
  for (size_t i = 0; i < sums.size(); ++i) manifest.files[unlisted[i].filename().string()] = sums[i];
  json object = {{"format_version", kFormatVersion}, {"step", manifest.step},         {"tokens", manifest.tokens},
                 {"state", manifest.state},          {"kv_cache", manifest.kv_cache}, {"schemes", json::object()},
                 {"files", json::object()}};
  object["quantizing"] = manifest.quantizing;
  for (const auto& [module, scheme] : manifest.schemes) object["schemes"][module] = scheme_to_json(scheme);
  for (const auto& [name, file] : manifest.files)
    object["files"][name] = {{"size_bytes", file.size_bytes}, {"crc32c", file.crc32c}};
  object["crc32c"] = checksum_of(object);
  write_file_atomically(directory / kManifest, object.dump(2) + "\n");
}

Manifest read_manifest(const fs::path& directory) {
  const fs::path path = directory / kManifest;
  if (!fs::exists(path))
    throw UserError(cat("expected a checkpoint, found no ", kManifest, " in ", directory.string()));
  const json object = load_json_object(path);
  try {
    if (const auto version = object.at("format_version").get<int64_t>(); version != kFormatVersion)
      throw UserError(cat(path.string(), ": expected format_version ", kFormatVersion, ", found ", version,
                          ": use the version of Satin that wrote it"));
    if (object.at("crc32c").get<uint32_t>() != checksum_of(object))
      throw UserError(
          cat(path.string(),
              ": the checksum does not match: the file was changed or is damaged; resume from another checkpoint"));
    Manifest manifest;
    manifest.step = object.at("step").get<int64_t>();
    manifest.tokens = object.at("tokens").get<int64_t>();
    manifest.state = object.at("state");
    manifest.kv_cache = object.value("kv_cache", "none");
    manifest.quantizing = object.value("quantizing", true);
    for (const auto& [module, scheme] : object.at("schemes").get_ref<const json::object_t&>())
      manifest.schemes[module] = scheme_from_json(scheme, cat(path.string(), ": schemes: ", module));
    for (const auto& [name, file] : object.at("files").get_ref<const json::object_t&>()) {
      if (!is_plain_name(name))
        throw UserError(cat(path.string(), ": files: expected a plain name, found ", json(name).dump()));
      manifest.files[name] = {file.at("size_bytes").get<uint64_t>(), file.at("crc32c").get<uint32_t>()};
    }
    return manifest;
  } catch (const json::exception& error) {
    throw UserError(cat(path.string(), ": not a manifest of Satin: ", error.what()));
  }
}

Manifest verify_checkpoint(const fs::path& directory, const std::string& unread, dist::Communicator& ranks) {
  Manifest manifest;
  std::vector<std::string> problems;
  std::vector<fs::path> whole;
  dist::together(ranks, [&] {
    manifest = read_manifest(directory);
    for (const auto& [name, expected] : manifest.files) {
      if (name == unread) continue;
      if (!fs::exists(directory / name))
        problems.push_back(name + " is missing");
      else if (const uint64_t size = MappedFile(directory / name).size(); size != expected.size_bytes)
        problems.push_back(cat(name, ": expected ", expected.size_bytes, " bytes, found ", size));
      else
        whole.push_back(directory / name);
    }
  });
  const auto sums = checksums(whole, ranks);
  for (size_t i = 0; i < whole.size(); ++i)
    if (const auto name = whole[i].filename().string(); sums[i].crc32c != manifest.files[name].crc32c)
      problems.push_back(name + ": the checksum does not match its content");
  if (!problems.empty()) throw_problems(directory.string() + " is damaged; resume from another checkpoint", problems);
  return manifest;
}

}  // namespace satin::io
