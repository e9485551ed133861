// Counter-based random numbers: a draw is a pure function of its coordinates, so ranks, micro-batches and resume
// cannot change it.
#pragma once
#include <cstdint>
#include <initializer_list>

namespace satin {

/// Avalanching 64-bit mix (the finaliser of SplitMix64; Steele, Lea, Flood 2014).
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// Hash of a tuple of counters, e.g. counter_hash({seed, epoch, sample, position, stream}).
constexpr uint64_t counter_hash(std::initializer_list<uint64_t> counters) {
  uint64_t h = 0;
  for (uint64_t c : counters) h = mix64(h ^ mix64(c));
  return h;
}

/// Uniform in [0, 1) with 53 bits.
constexpr double to_uniform(uint64_t hash) { return static_cast<double>(hash >> 11) * 0x1.0p-53; }

/// Uniform integer in [0, n) (multiply-shift; bias below n / 2^64).
constexpr uint64_t to_index(uint64_t hash, uint64_t n) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(hash) * n) >> 64);
}

}  // namespace satin
