#include "data/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace satin::data {

nlohmann::json Position::to_json() const {
  return {{"sample", sample}, {"drawn", drawn}, {"data_checksum", data_checksum}};
}

Position Position::from_json(const nlohmann::json& json, const std::string& where) {
  try {
    return {json.at("sample").get<uint64_t>(), json.at("drawn").get<std::vector<uint64_t>>(),
            json.at("data_checksum").get<uint32_t>()};
  } catch (const nlohmann::json::exception& error) {
    throw UserError(cat(where, ": not a data position: ", error.what()));
  }
}

uint64_t permute(uint64_t index, uint64_t n, uint64_t key) {
  SATIN_CHECK(index < n, index, " of ", n);
  if (n == 1) return 0;
  // Halves of 2 bits would mix too little: with 3 and 8 rounds all orders of 5 things are equally likely.
  const int half_bits = std::max<int>(3, (std::bit_width(n - 1) + 1) / 2);
  const uint64_t mask = (1ull << half_bits) - 1;
  constexpr uint64_t kRounds = 8;
  do {
    uint64_t left = index >> half_bits, right = index & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t mixed = left ^ (counter_hash({key, round, right}) & mask);
      left = right;
      right = mixed;
    }
    index = left << half_bits | right;
  } while (index >= n);  // at most 4 turns on average from n = 16 on: the domain is at most 4 n
  return index;
}

Sampler::Sampler(std::vector<Source> sources, const Options& options)
    : sources_(std::move(sources)), options_(options) {
  SATIN_CHECK(!sources_.empty());
  double total = 0;
  size_t num_weighted = 0;
  for (const Source& source : sources_) {
    SATIN_CHECK(source.num_windows > 0);
    if (!(source.weight >= 0) || !std::isfinite(source.weight))
      throw UserError(cat("data: weight: expected a number of at least 0, found ", source.weight));
    total += source.weight;
    num_weighted += source.weight > 0;
  }
  if (num_weighted != 0 && num_weighted != sources_.size())
    throw UserError(cat("data: ", num_weighted, " of ", sources_.size(),
                        " sources have a weight above 0; give one to all, ",
                        "or to none (then each counts by its tokens)"));
  for (const Source& source : sources_)
    shares_.push_back(num_weighted == 0 ? source.num_windows
                                        : static_cast<uint64_t>(std::llround(source.weight / total * 0x1p32)));
  total_share_ = std::accumulate(shares_.begin(), shares_.end(), uint64_t{0});
  position_ = {0, std::vector<uint64_t>(sources_.size(), 0), options_.data_checksum};
}

Sample Sampler::next() {
  using Wide = __int128;
  size_t behind = 0;
  Wide largest = 0;
  for (size_t s = 0; s < sources_.size(); ++s) {
    const Wide deficit =
        static_cast<Wide>(shares_[s]) * (position_.sample + 1) - static_cast<Wide>(position_.drawn[s]) * total_share_;
    if (s == 0 || deficit > largest) {
      largest = deficit;
      behind = s;
    }
  }
  const uint64_t num_windows = sources_[behind].num_windows;
  const uint64_t k = position_.drawn[behind]++;
  Sample sample{position_.sample++, static_cast<uint32_t>(behind), k % num_windows, k / num_windows};
  if (options_.shuffle)
    sample.window = permute(sample.window, num_windows, counter_hash({options_.seed, behind, sample.epoch}));
  return sample;
}

void Sampler::seek(const Position& position) {
  if (position.sample == 0 && position.drawn.empty()) {
    position_ = {0, std::vector<uint64_t>(sources_.size(), 0), options_.data_checksum};
    return;
  }
  if (position.drawn.size() != sources_.size())
    throw UserError(cat("data: cannot resume: the checkpoint read ", position.drawn.size(), " sources, the config has ",
                        sources_.size()));
  if (position.data_checksum != options_.data_checksum)
    throw UserError(
        "data: cannot resume: files, weights, seed, shuffle or sequence_length differ from the checkpoint's run");
  uint64_t sum = 0;
  for (const uint64_t drawn : position.drawn)
    if (__builtin_add_overflow(sum, drawn, &sum)) sum = ~position.sample;
  if (sum != position.sample)
    throw UserError(cat("data: cannot resume: the position is damaged: ", position.sample, " samples, but ", sum,
                        " over the sources"));
  position_ = position;
}

double Sampler::share(size_t source) const { return static_cast<double>(shares_[source]) / total_share_; }

}  // namespace satin::data
