// Shapes: B windows, T tokens, R replaced positions of a level, V vocabulary, H hidden, k candidates.
#include "losses/neighbourhood.h"

#include <ATen/core/grad_mode.h>

#include <limits>

#include "core/error.h"
#include "core/random.h"
#include "losses/head.h"
#include "losses/schedule.h"
#include "ops/to_device.h"

namespace satin::losses {
namespace {

// Streams of counter_hash: independent numbers for the questions asked of a position: whether it is replaced, by which
// draw, and whether by any token.
constexpr uint64_t kStartsHere = 0x6e65696768626f75, kDrawnHere = kStartsHere + 1, kRandomHere = kStartsHere + 2;

template <class T>
at::Tensor tensor_of(const std::vector<T>& values, at::ScalarType dtype, const at::Device& device) {
  at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, dtype);
  std::copy(values.begin(), values.end(), host.data_ptr<T>());
  return ops::to_device(host, device);
}

void require_neighbourhood(bool condition, const char* key, const char* expected, double found) {
  if (!condition) throw UserError(cat("loss.neighbourhood.", key, ": expected ", expected, ", found ", found));
}

}  // namespace

bool draws_from(const config::Neighbourhood& config, const std::string& source) {
  return config.rate > 0 && config.random_share < 1 && config.source == source;
}

/// The i-th tokens of all walks.
struct Neighbourhood::Level {
  struct Tokens {
    std::vector<int64_t> positions;  ///< flat index b * T + t of the token that is replaced
    std::vector<uint64_t> hashes;    ///< the draw's random bits
  };
  Tokens of_source, random;
};

Neighbourhood::Neighbourhood(const config::Neighbourhood& config, int64_t num_tokens, std::vector<int64_t> special_ids,
                             uint64_t seed, int64_t chunk_tokens)
    : config_(config), num_tokens_(num_tokens), seed_(seed), chunk_tokens_(chunk_tokens) {
  require_neighbourhood(config.rate >= 0 && config.rate <= 1, "rate", "a probability", config.rate);
  require_neighbourhood(config.start >= 0 && config.start <= 1, "start", "a fraction of training", config.start);
  require_neighbourhood(config.ramp >= 0 && config.ramp <= 1, "ramp", "a fraction of training", config.ramp);
  require_neighbourhood(config.top_k >= 1 && config.top_k <= ops::kMaxTopK, "top_k",
                        cat("1 to ", ops::kMaxTopK).c_str(), static_cast<double>(config.top_k));
  require_neighbourhood(config.temperature > 0, "temperature", "a number above 0", config.temperature);
  require_neighbourhood(config.depth >= 1, "depth", "at least 1", static_cast<double>(config.depth));
  require_neighbourhood(config.random_share >= 0 && config.random_share <= 1, "random_share", "a share",
                        config.random_share);
  if (config.source != "teacher" && config.source != "student" && config.source != "random")
    throw UserError(
        cat("loss.neighbourhood.source: expected teacher, student or random, found \"", config.source, "\""));
  if (config.placement != "text" && config.placement != "branch")
    throw UserError(cat("loss.neighbourhood.placement: expected text or branch, found \"", config.placement, "\""));
  if (config.placement == "branch" && config.depth > 1)
    throw UserError(
        cat("loss.neighbourhood.depth: expected 1 with loss.neighbourhood.placement branch, found ", config.depth));
  SATIN_CHECK(num_tokens > 0, num_tokens, " tokens");
  for (int64_t id : special_ids) {
    SATIN_CHECK(id >= 0, "special id ", id);
    if (static_cast<size_t>(id) >= special_.size()) special_.resize(id + 1);
    special_[id] = true;
  }
  special_.resize(std::max<size_t>(special_.size(), num_tokens));
  for (int64_t id = 0; id < num_tokens; ++id) (special_[id] ? excluded_ : drawable_).push_back(id);
  if (drawable_.empty())
    throw UserError(cat("all ", num_tokens, " tokens of the vocabulary are special: nothing to draw"));
}

double Neighbourhood::rate_at(double progress) const {
  return config_.rate * share_at(progress, config_.start, config_.ramp);
}

int64_t Neighbourhood::num_source_calls(double progress, bool stored) const {
  if (!needs_source() || rate_at(progress) == 0) return 0;
  return config_.depth - (stored && !needs_student());
}

std::vector<Neighbourhood::Level> Neighbourhood::plan(const CleanWindows& clean, double rate) const {
  SATIN_CHECK(clean.tokens.is_cpu() && clean.tokens.dim() == 2, "clean tokens: [B, T] on the CPU");
  const int64_t B = clean.tokens.size(0), T = clean.tokens.size(1);
  SATIN_CHECK_EQ(static_cast<int64_t>(clean.sample_ids.size()), B);
  const at::Tensor tokens = clean.tokens.contiguous();
  const at::Tensor starts = clean.document_starts.defined() ? clean.document_starts.contiguous() : at::Tensor();
  const int64_t* token = tokens.const_data_ptr<int64_t>();
  const bool* starts_document = starts.defined() ? starts.const_data_ptr<bool>() : nullptr;

  std::vector<Level> levels(config_.depth);
  for (int64_t b = 0; b < B; ++b) {
    const uint64_t sample = clean.sample_ids[b];
    const auto hash = [&](uint64_t stream, int64_t t) {
      return counter_hash({stream, seed_, sample, static_cast<uint64_t>(t)});
    };
    const auto replaceable = [&](int64_t t) {
      const int64_t at = b * T + t, id = token[at];
      const bool is_special = id >= 0 && static_cast<size_t>(id) < special_.size() && special_[id];
      return !is_special && !(starts_document && starts_document[at]);
    };
    int64_t step = -1;  // how far into a walk; -1: outside
    for (int64_t t = 1; t < T; ++t) {
      step = step >= 0 && step + 1 < config_.depth ? step + 1 : -1;
      if (!replaceable(t))
        step = -1;
      else if (step < 0 && to_uniform(hash(kStartsHere, t)) < rate)
        step = 0;
      if (step < 0) continue;
      const bool is_random = config_.source == "random" || to_uniform(hash(kRandomHere, t)) < config_.random_share;
      Level::Tokens& tokens = is_random ? levels[step].random : levels[step].of_source;
      tokens.positions.push_back(b * T + t);
      tokens.hashes.push_back(hash(kDrawnHere, t));
    }
  }
  return levels;
}

at::Tensor Neighbourhood::chosen(const CleanWindows& clean, double progress) const {
  at::Tensor chosen = at::zeros(clean.tokens.sizes(), at::kBool);
  bool* const flags = chosen.mutable_data_ptr<bool>();
  for (const Level& level : plan(clean, rate_at(progress)))
    for (const Level::Tokens* tokens : {&level.of_source, &level.random})
      for (int64_t position : tokens->positions) flags[position] = true;
  return chosen;
}

at::Tensor Neighbourhood::perturb(const at::Tensor& tokens, const CleanWindows& clean, const Source& source,
                                  const StoredCandidates& stored, double progress, bool always_reads) const {
  const double rate = rate_at(progress);
  if (rate == 0) return tokens;
  at::NoGradGuard no_grad;
  at::Tensor perturbed;
  const std::vector<Level> levels = plan(clean, rate);
  for (size_t i = 0; i < levels.size(); ++i) {
    const Level& level = levels[i];
    const bool reads_source = needs_source() && !(i == 0 && stored.defined() && !needs_student());
    if (always_reads && reads_source && level.of_source.positions.empty())
      source(perturbed.defined() ? perturbed : tokens);
    if (level.of_source.positions.empty() && level.random.positions.empty()) continue;
    if (!perturbed.defined()) perturbed = tokens.contiguous().clone();
    if (!level.of_source.positions.empty()) {
      const at::Tensor positions = tensor_of(level.of_source.positions, at::kLong, tokens.device());
      const std::vector<uint64_t>& hashes = level.of_source.hashes;
      std::vector<double> uniforms(hashes.size());
      std::transform(hashes.begin(), hashes.end(), uniforms.begin(), to_uniform);
      const at::Tensor numbers = tensor_of(uniforms, at::kDouble, tokens.device());
      const at::Tensor drawn =
          reads_source ? draw(source(perturbed), positions - 1, numbers)
                       : draw_stored(stored, positions - 1, numbers, tokens.reshape(-1).index_select(0, positions));
      perturbed.view(-1).index_copy_(0, positions, drawn);
    }
    if (!level.random.positions.empty()) {  // after the source has read what came before this level
      std::vector<int64_t> ids;
      for (uint64_t hash : level.random.hashes) ids.push_back(drawable_[to_index(hash, drawable_.size())]);
      perturbed.view(-1).index_copy_(0, tensor_of(level.random.positions, at::kLong, tokens.device()),
                                     tensor_of(ids, at::kLong, tokens.device()));
    }
  }
  return perturbed.defined() ? perturbed : tokens;
}

at::Tensor Neighbourhood::draw(const SourceStates& states, const at::Tensor& rows, const at::Tensor& uniforms) const {
  SATIN_CHECK(states.head.size(0) >= num_tokens_, "head of ", states.head.size(0), " rows, ", num_tokens_, " tokens");
  const at::Tensor hidden = states.hidden.reshape({-1, states.hidden.size(-1)});
  const at::Tensor head = states.head.narrow(0, 0, num_tokens_);
  const at::Tensor excluded = tensor_of(excluded_, at::kLong, hidden.device());
  std::vector<at::Tensor> drawn;
  const HeadChunks chunks(chunk_tokens_, rows.size(0), num_tokens_, hidden.scalar_type(), hidden.device());
  for (int64_t start = 0; start < rows.size(0); start += chunks.logits) {
    const int64_t n = std::min(chunks.logits, rows.size(0) - start);
    const at::Tensor logits = head_logits(hidden.index_select(0, rows.narrow(0, start, n)), head);
    drawn.push_back(draw_chunk(logits, uniforms.narrow(0, start, n), excluded));
  }
  return at::cat(drawn);
}

at::Tensor Neighbourhood::draw_chunk(at::Tensor logits, const at::Tensor& uniforms, const at::Tensor& excluded) const {
  logits.index_fill_(1, excluded, -std::numeric_limits<double>::infinity());
  const int64_t k = std::min<int64_t>(config_.top_k, static_cast<int64_t>(drawable_.size()));
  const auto [values, ids] = ops::top_k(logits, k);
  return ids.gather(1, pick(values, uniforms)).squeeze(1);
}

at::Tensor Neighbourhood::draw_stored(const StoredCandidates& stored, const at::Tensor& rows,
                                      const at::Tensor& uniforms, const at::Tensor& clean) const {
  SATIN_CHECK(config_.top_k <= stored.ids.size(-1), config_.top_k, " candidates of ", stored.ids.size(-1), " stored");
  const double none = -std::numeric_limits<double>::infinity();
  const at::Tensor excluded = at::zeros({num_tokens_}, rows.options().dtype(at::kBool))
                                  .index_fill_(0, tensor_of(excluded_, at::kLong, rows.device()), true);
  const at::Tensor ids = stored.ids.flatten(0, 1).index_select(0, rows).to(at::kLong);
  at::Tensor logits = stored.logits.flatten(0, 1).index_select(0, rows);
  logits.masked_fill_(excluded.index_select(0, ids.flatten()).view_as(ids), none);
  // The best top_k of what is left: they fall, so those with fewer than top_k before them.
  const at::Tensor drawable = logits != none;
  logits = logits.masked_fill(drawable.to(at::kInt).cumsum(1) > config_.top_k, none);
  const at::Tensor drawn = ids.gather(1, pick(logits, uniforms)).squeeze(1);
  return at::where(drawable.any(1), drawn, clean);
}

at::Tensor Neighbourhood::pick(const at::Tensor& logits, const at::Tensor& uniforms) const {
  // Inverse of the distribution function: the first candidate whose cumulated probability exceeds the uniform.
  // Probabilities are whole multiples of 2^-52, so that their sums are exact in any order, on any device.
  const int64_t k = logits.size(1);
  const at::Tensor probability = at::softmax(logits.to(at::kDouble) / config_.temperature, 1);
  const at::Tensor cumulated = (probability * 0x1p52).to(at::kLong).cumsum(1);
  const at::Tensor level = (uniforms.unsqueeze(1) * cumulated.narrow(1, k - 1, 1).to(at::kDouble)).to(at::kLong);
  return (cumulated <= level).sum(1, /*keepdim=*/true).clamp_max(k - 1);
}

}  // namespace satin::losses
