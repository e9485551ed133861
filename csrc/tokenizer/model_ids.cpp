#include "tokenizer/model_ids.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "tokenizer/json_node.h"

namespace satin::tokenizer {
namespace {

using nlohmann::json;

void add_post_processor(const JsonNode& node, const TokenToId& token_to_id, ModelIds& ids, int depth) {
  const std::string& type = node.type();
  if (type == "Sequence") {
    if (depth == kMaxDepth) node.fail("Sequences are nested too deep");
    for (const JsonNode& item : node.at("processors").items()) add_post_processor(item, token_to_id, ids, depth + 1);
    return;
  }
  if (type == "ByteLevel") return;  // trims offsets, nothing else
  if (type != "TemplateProcessing")
    node.unsupported("post_processor type '" + type + "'", "TemplateProcessing, ByteLevel, Sequence");
  bool before = true;
  for (const JsonNode& item : node.at("single").items()) {
    if (item.find("Sequence")) {
      before = false;
      continue;
    }
    const JsonNode special = item.at("SpecialToken").at("id");
    const int32_t id = token_to_id(special.string());
    if (id < 0) special.fail("'" + special.string() + "' is not in the vocabulary");
    (before ? ids.bos : ids.eos) = id;
    (before ? ids.adds_bos : ids.adds_eos) = true;
  }
}

std::optional<json> read_object(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  try {
    json value = json::parse(read_file(path));
    if (!value.is_object()) throw UserError(cat(path.string(), ": expected an object, found ", value.type_name()));
    return value;
  } catch (const json::exception& error) {
    throw UserError(cat(path.string(), ": ", error.what()));
  }
}

// bos_token_id or eos_token_id: a number, or a list of which the first counts.
std::optional<int32_t> declared_id(const JsonNode& config, const std::string& key) {
  auto member = config.find(key);
  if (member && member->json().is_array()) {
    const auto items = member->items();
    if (items.empty()) return std::nullopt;
    member = items.front();
  }
  if (!member) return std::nullopt;
  const int64_t id = member->integer();
  if (id < 0 || id > INT32_MAX) member->fail(cat("expected a token id, found ", id));
  return static_cast<int32_t>(id);
}

}  // namespace

ModelIds ids_from_post_processor(const JsonNode& node, const TokenToId& token_to_id) {
  ModelIds ids;
  add_post_processor(node, token_to_id, ids, 0);
  return ids;
}

ModelIds ids_from_directory(const std::filesystem::path& directory, ModelIds ids, const TokenToId& token_to_id) {
  bool bos_known = false, eos_known = false;
  const auto path = directory / "tokenizer_config.json";
  if (const auto config = read_object(path)) {
    const JsonNode node(*config, path.string());
    const auto declared = [&](const char* key, int32_t& id, bool& known) {
      if (!config->contains(key)) return;
      known = true;
      const auto member = node.find(key);
      if (!member) {
        id = -1;
        return;
      }
      const std::string token = member->json().is_object() ? member->at("content").string() : member->string();
      id = token_to_id(token);
      if (id < 0) member->fail("'" + token + "' is not in the vocabulary of tokenizer.json");
    };
    declared("bos_token", ids.bos, bos_known);
    declared("eos_token", ids.eos, eos_known);
  }
  for (const char* name : {"generation_config.json", "config.json"}) {
    const auto config = read_object(directory / name);
    if (!config) continue;
    const JsonNode node(*config, (directory / name).string());
    const auto declared = [&](const char* key, int32_t& id, bool& known) {
      if (known) return;
      const auto value = declared_id(node, key);
      if (!value) return;
      id = *value;
      known = true;
    };
    declared("bos_token_id", ids.bos, bos_known);
    declared("eos_token_id", ids.eos, eos_known);
  }
  return ids;
}

}  // namespace satin::tokenizer
