// Which window of which source is sample i of a run: a pure function of (shapes, seed, i), cheap to continue anywhere.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace satin::data {

/// Sample i.
struct Sample {
  uint64_t id;  ///< i: 0, 1, 2, ... over the whole run
  uint32_t source;
  uint64_t window;  ///< of the source
  uint64_t epoch;   ///< of the source: how often it had been read through before
};

/// How far a run has read: all there is to know for going on exactly.
struct Position {
  uint64_t sample = 0;          ///< id of the next sample
  std::vector<uint64_t> drawn;  ///< samples taken from each source; empty at the start
  uint32_t data_checksum = 0;   ///< of what is sampled (0 at the start): a resume with other data is refused

  bool operator==(const Position&) const = default;
  nlohmann::json to_json() const;
  /// Errors: UserError naming `where` when a member is missing or has another type.
  static Position from_json(const nlohmann::json& json, const std::string& where);
};

/// The place of `index` in a shuffled order of n things: a bijection of [0, n) that differs with the key.
/// Source: a Feistel network over an even power of two, walked until it lands below n (Black and Rogaway,
/// "Ciphers with arbitrary finite domains", CT-RSA 2002, section 4). No memory, the same on every platform.
uint64_t permute(uint64_t index, uint64_t n, uint64_t key);

class Sampler {
 public:
  struct Source {
    uint64_t num_windows;
    double weight = 0;  ///< share of the samples, relative to the others'; 0 for all: in proportion to num_windows
  };
  struct Options {
    uint64_t seed = 0;
    bool shuffle = true;         ///< else windows in their order
    uint32_t data_checksum = 0;  ///< stands for the sources in positions
  };
  /// Errors: UserError when some weights are 0 and others not, or one is negative or not finite.
  Sampler(std::vector<Source> sources, const Options& options);

  /// Sample position().sample. The source is the one that is furthest behind its share (the first among equals), so
  /// after any number of samples each has its share within about one. Each source's windows come once an epoch, in an
  /// order that is a function of (seed, source, epoch).
  Sample next();
  Position position() const { return position_; }
  /// Errors: UserError when the position belongs to other data.
  void seek(const Position& position);
  /// The share of the samples that source s gets; they sum to 1.
  double share(size_t source) const;

 private:
  std::vector<Source> sources_;
  std::vector<uint64_t> shares_;  ///< integers, so that no platform rounds otherwise
  uint64_t total_share_ = 0;
  Options options_;
  Position position_;
};

}  // namespace satin::data
