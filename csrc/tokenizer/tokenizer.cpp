#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>
#include <span>

#include "core/error.h"
#include "core/file.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decoder.h"
#include "tokenizer/json_node.h"
#include "tokenizer/model_ids.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/utf8.h"

namespace satin::tokenizer {
namespace {

// What one call of encode works with; kept between calls for the words it remembers.
struct Workspace {
  WordCache cache;
  std::vector<Range> pieces;
  std::vector<Symbol> symbols;
};

// Tokens of one call; spans are worked out only when asked for.
struct Output {
  std::vector<int32_t> ids;
  std::vector<TokenSpan> spans;
  bool with_spans;

  void add(int32_t id, const Text& text, size_t begin, size_t end) {
    if (!with_spans) return ids.push_back(id);
    const Range source = text.source(begin, end);
    spans.push_back({id, source.begin, source.end});
  }
};

}  // namespace

struct Tokenizer::Impl {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe model;
  AddedTokens added;
  Decoder decoder;
  ModelIds ids;
  std::vector<std::string> tokens;  // by id, as the decoder wants them; empty where there is none
  std::vector<bool> known;          // by id
  std::vector<int32_t> special_ids;
  uint32_t fingerprint = 0;

  mutable std::atomic<uint64_t> num_invalid_utf8 = 0;
  mutable std::mutex mutex;  // guards `idle`
  mutable std::vector<std::unique_ptr<Workspace>> idle;

  int32_t token_to_id(const std::string& token) const {
    for (const AddedToken& added_token : added.tokens())
      if (added_token.content == token) return added_token.id;
    const auto found = model.vocab().find(token);
    return found == model.vocab().end() ? -1 : found->second;
  }

  void index_tokens() {
    const auto put = [&](int32_t id, const std::string& token) {
      if (static_cast<size_t>(id) >= tokens.size()) {
        tokens.resize(id + 1);
        known.resize(id + 1);
      }
      tokens[id] = token;
      known[id] = true;
    };
    for (const auto& [token, id] : model.vocab()) put(id, token);
    for (const AddedToken& token : added.tokens()) {
      put(token.id, token.normal_form);
      if (token.special) special_ids.push_back(token.id);
    }
    std::sort(special_ids.begin(), special_ids.end());
  }

  void encode_plain(Text text, Workspace& work, Output& out) const {
    pre_tokenizer.apply(text, work.pieces);
    const std::string_view bytes = text.bytes();
    for (const Range& piece : work.pieces) {
      work.symbols.clear();
      model.encode(bytes.substr(piece.begin, piece.end - piece.begin), work.cache, work.symbols);
      for (const Symbol& symbol : work.symbols)
        out.add(symbol.id, text, piece.begin + symbol.begin, piece.begin + symbol.end);
    }
  }

  void encode_section(Text text, Workspace& work, Output& out) const {
    normalizer.apply(text);
    if (!added.any_normalized()) return encode_plain(std::move(text), work, out);
    added.split(text.bytes(), true, [&](Range part, const AddedToken* token) {
      if (token)
        out.add(token->id, text, part.begin, part.end);
      else
        encode_plain(text.slice(part.begin, part.end), work, out);
    });
  }

  Output encode(std::string_view input, bool with_spans) const {
    std::string repaired;
    if (valid_utf8_prefix(input) != input.size()) {
      uint64_t count = 0;
      repaired = replace_invalid_utf8(input, count);
      input = repaired;
      num_invalid_utf8 += count;
    }
    std::unique_ptr<Workspace> work = take_workspace();
    Output out{{}, {}, with_spans};
    const Text whole(input, 0, with_spans);
    added.split(input, false, [&](Range part, const AddedToken* token) {
      if (token)
        out.add(token->id, whole, part.begin, part.end);
      else
        encode_section(whole.slice(part.begin, part.end), *work, out);
    });
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(work));
    return out;
  }

  std::unique_ptr<Workspace> take_workspace() const {
    const std::lock_guard lock(mutex);
    if (idle.empty()) return std::make_unique<Workspace>();
    std::unique_ptr<Workspace> work = std::move(idle.back());
    idle.pop_back();
    return work;
  }
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::parse(std::string_view text, const std::string& where) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw UserError(cat(where, ": not valid JSON: ", error.what()));
  }
  const JsonNode root(json, where);
  auto impl = std::make_unique<Impl>();
  const JsonNode model = root.at("model");
  if (const auto node = root.find("normalizer")) impl->normalizer = Normalizer::parse(*node);
  if (const auto node = root.find("pre_tokenizer")) impl->pre_tokenizer = PreTokenizer::parse(*node);
  impl->model = Bpe::parse(model, impl->pre_tokenizer.byte_level());
  if (const auto node = root.find("added_tokens"))
    impl->added = AddedTokens::parse(*node, impl->model.vocab(), impl->normalizer);
  if (const auto node = root.find("decoder")) impl->decoder = Decoder::parse(*node);
  impl->index_tokens();
  if (impl->tokens.empty()) model.fail("the vocabulary is empty");
  if (const auto node = root.find("post_processor"))
    impl->ids = ids_from_post_processor(*node, [&](const std::string& token) { return impl->token_to_id(token); });
  impl->fingerprint = crc32c(std::as_bytes(std::span(text.data(), text.size())));
  return Tokenizer(std::move(impl));
}

Tokenizer Tokenizer::parse(std::string_view json, const std::string& where, const Declared& declared) {
  Tokenizer tokenizer = parse(json, where);
  tokenizer.impl_->ids.bos = declared.bos;
  tokenizer.impl_->ids.eos = declared.eos;
  tokenizer.impl_->fingerprint = declared.fingerprint.value_or(tokenizer.impl_->fingerprint);
  return tokenizer;
}

Tokenizer Tokenizer::load(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "tokenizer.json";
  if (!std::filesystem::exists(path))
    throw UserError(cat(path.string(),
                        ": no such file (a tokenizer directory must hold tokenizer.json; convert a "
                        "tokenizer.model with transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...))"));
  Tokenizer tokenizer = parse(read_file(path), path.string());
  Impl& impl = *tokenizer.impl_;
  impl.ids = ids_from_directory(directory, impl.ids, [&](const std::string& token) { return impl.token_to_id(token); });
  return tokenizer;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const { return impl_->encode(text, false).ids; }

std::vector<TokenSpan> Tokenizer::encode_with_spans(std::string_view text) const {
  return impl_->encode(text, true).spans;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= impl_->tokens.size() || !impl_->known[id]) continue;
    if (skip_special && std::binary_search(impl_->special_ids.begin(), impl_->special_ids.end(), id)) continue;
    tokens.push_back(impl_->tokens[id]);
  }
  return impl_->decoder.decode(std::move(tokens));
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(impl_->tokens.size()); }
int32_t Tokenizer::bos_id() const { return impl_->ids.bos; }
int32_t Tokenizer::eos_id() const { return impl_->ids.eos; }
bool Tokenizer::adds_bos() const { return impl_->ids.adds_bos; }
bool Tokenizer::adds_eos() const { return impl_->ids.adds_eos; }
const std::vector<int32_t>& Tokenizer::special_ids() const { return impl_->special_ids; }
int32_t Tokenizer::token_to_id(const std::string& token) const { return impl_->token_to_id(token); }
uint64_t Tokenizer::invalid_utf8_count() const { return impl_->num_invalid_utf8; }
uint32_t Tokenizer::fingerprint() const { return impl_->fingerprint; }

}  // namespace satin::tokenizer
