// Shared by the tests of teacher caches.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <random>

#include "core/error.h"
#include "data/teacher_cache.h"
#include "support/test_support.h"

namespace satin::data {
namespace fs = std::filesystem;
using test::TempDir;

inline std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

#define EXPECT_SAYS(expected, ...)                                   \
  do {                                                               \
    const std::string message = message_of([&] { __VA_ARGS__; });    \
    EXPECT_NE(message.find(expected), std::string::npos) << message; \
  } while (false)

inline TeacherCacheDescription describe(uint64_t num_windows, int64_t sequence_length, int64_t top_k,
                                        int64_t vocab_size) {
  return {"models/teacher", 11, 22, 33, num_windows, sequence_length, top_k, vocab_size, false, "bfloat16"};
}

/// Rows as a teacher gives them. Some have fewer than k candidates; some leave out nothing, so that log_rest is -inf.
inline TeacherRows random_rows(const TeacherCacheDescription& d, uint64_t window, uint64_t copy = 0) {
  std::mt19937 random(static_cast<uint32_t>(window + 1000 * copy));
  const auto k = static_cast<size_t>(d.top_k);
  TeacherRows rows;
  for (int64_t t = 0; t < d.sequence_length; ++t) {
    const size_t candidates = random() % 4 == 0 ? random() % k + 1 : k;
    std::vector<float> logits(k, -INFINITY);
    for (size_t i = 0; i < candidates; ++i)
      logits[i] = i == 0 ? 0 : -std::exp(std::uniform_real_distribution<float>(-18, 12)(random));
    std::sort(logits.rbegin(), logits.rend());
    for (size_t i = 0; i < k; ++i)
      rows.ids.push_back(i < candidates ? static_cast<int32_t>(random() % static_cast<uint64_t>(d.vocab_size)) : 0);
    rows.logits.insert(rows.logits.end(), logits.begin(), logits.end());
    rows.log_total.push_back(std::uniform_real_distribution<float>(0, 12)(random));
    rows.log_rest.push_back(random() % 3 == 0 ? -INFINITY : -std::uniform_real_distribution<float>(0, 30)(random));
    if (d.copies > 0) rows.tokens.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(d.vocab_size)));
  }
  return rows;
}

inline void add(TeacherCacheWriter& writer, const TeacherRows& rows) {
  writer.add(rows.ids, rows.logits, rows.log_total, rows.log_rest, rows.tokens);
}

/// Adds windows up to `end`; complete when that is all of them.
inline void write(const fs::path& directory, const TeacherCacheDescription& d, uint64_t shard_bytes, uint64_t end) {
  TeacherCacheWriter writer(directory, d, shard_bytes);
  while (writer.next_window() < end) {
    const uint64_t window = writer.next_window();
    for (uint64_t copy = 0; copy < std::max<uint64_t>(1, d.copies); ++copy) add(writer, random_rows(d, window, copy));
  }
  if (end == d.num_windows) writer.finish();
}

inline TeacherRows read_all(const TeacherCache& cache) {
  TeacherRows rows;
  for (uint64_t window = 0; window < cache.description().num_windows; ++window)
    for (uint64_t copy = 0; copy < std::max<uint64_t>(1, cache.description().copies); ++copy)
      cache.read(window, rows, copy);
  return rows;
}

inline bool same(const TeacherRows& a, const TeacherRows& b) {
  return a.ids == b.ids && a.logits == b.logits && a.log_total == b.log_total && a.log_rest == b.log_rest;
}

inline std::map<std::string, std::string> files_of(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(directory))
    files[entry.path().filename().string()] = test::read_file(entry.path());
  return files;
}

}  // namespace satin::data
