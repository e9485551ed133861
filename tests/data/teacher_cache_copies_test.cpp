// Caches of perturbed copies: each window several times, each with its own tokens.
#include <cstring>
#include <tuple>

#include "teacher_cache_support.h"

namespace satin::data {
namespace {

TeacherCacheDescription with_copies(TeacherCacheDescription d, uint64_t copies) {
  d.copies = copies;
  d.neighbourhood = {0.15, 40, 2, 1, "teacher", 0.25, 7};
  return d;
}

// Five arrays of 3 tokens of 2 ids: 8 bytes of tokens, then 16 four times; 72 bytes a copy, 216 a window.
const TeacherCacheDescription kThreeCopies = with_copies(describe(5, 3, 2, 100), 3);
constexpr uint64_t kThreeCopiesShardBytes = 2 * 216 + 1;  // shards of 2, 2 and 1 windows

TEST(TeacherCacheCopies, EachComesBack) {
  for (const int64_t vocab_size : {100, 65536, 65537}) {
    TempDir dir;
    const auto d = with_copies(describe(7, 9, 5, vocab_size), 3);
    write(dir / "cache", d, 3000, 7);
    const TeacherCache cache(dir / "cache");
    EXPECT_TRUE(differences(cache.description(), d).empty());
    EXPECT_EQ(cache.description().neighbourhood.source, "teacher");
    for (const uint64_t window : {6, 0, 3})
      for (const uint64_t copy : {1, 0, 2}) {
        const TeacherRows given = random_rows(d, window, copy);
        TeacherRows read;
        cache.read(window, read, copy);
        EXPECT_EQ(read.tokens, given.tokens);
        EXPECT_EQ(read.ids, given.ids);
        EXPECT_EQ(read.log_total, given.log_total);
        EXPECT_EQ(read.log_rest, given.log_rest);
        ASSERT_EQ(read.logits.size(), given.logits.size());
        for (size_t i = 0; i < given.logits.size(); ++i) {  // stored as fp16, finite ones as finite
          const float stored = std::isinf(given.logits[i]) ? given.logits[i] : std::max(given.logits[i], -65504.0f);
          ASSERT_TRUE(read.logits[i] == stored || std::abs(read.logits[i] - stored) <= std::abs(stored) / 2048 + 1e-7)
              << i << ": " << read.logits[i] << " of " << stored;
        }
      }
    TeacherRows rows;
    EXPECT_THROW(cache.read(0, rows, 3), InternalError);
  }
}

TEST(TeacherCacheCopies, WithoutThemNothingOfThemIsWritten) {
  TempDir dir;
  write(dir / "cache", describe(2, 3, 2, 100), 1 << 20, 2);
  const std::string manifest = test::read_file(dir / "cache/manifest.json");
  EXPECT_NE(manifest.find("\"version\": 1"), std::string::npos);
  EXPECT_EQ(manifest.find("copies"), std::string::npos);
  EXPECT_EQ(manifest.find("neighbourhood"), std::string::npos);
  EXPECT_EQ(test::read_file(dir / "cache/shard-00000.bin")[8], 1);
  TeacherRows rows;
  TeacherCache(dir / "cache").read(1, rows);
  EXPECT_TRUE(rows.tokens.empty());
}

TEST(TeacherCacheCopies, PythonReadsWhatIsWritten) {
  SATIN_NEEDS_PYTHON("numpy");
  for (const int64_t vocab_size : {65536, 65537}) {
    TempDir dir;
    const auto d = with_copies(describe(5, 7, 3, vocab_size), 2);
    write(dir / "cache", d, 900, 5);
    std::string given;
    const auto append = [&](const auto& values) {
      given.append(reinterpret_cast<const char*>(values.data()), values.size() * 4);
    };
    for (uint64_t window = 0; window < 5; ++window)
      for (uint64_t copy = 0; copy < 2; ++copy) {
        const TeacherRows rows = random_rows(d, window, copy);
        append(rows.tokens), append(rows.ids), append(rows.logits), append(rows.log_total), append(rows.log_rest);
      }
    test::write_file(dir / "rows", given);
    const auto result =
        test::run_python("data/teacher_cache.py check " + (dir / "cache").string() + " " + (dir / "rows").string());
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_NE(result.output.find("5 windows in "), std::string::npos) << result.output;
  }
}

TEST(TeacherCacheCopies, ReadsWhatPythonHasWritten) {  // the fuzzer's valid inputs: 2 windows, 2 copies, 3 tokens
  for (const char* name : {"copies", "copies-wide"}) {
    TempDir dir;
    const std::string both = test::read_file(test::source_dir() / "tests/data/corpus/teacher_cache" / name);
    fs::create_directory(dir / "cache");
    test::write_file(dir / "cache/manifest.json", both.substr(0, both.find('\0')));
    test::write_file(dir / "cache/shard-00000.bin", both.substr(both.find('\0') + 1));
    const TeacherRows rows = read_all(TeacherCache(dir / "cache"));
    EXPECT_EQ(rows.tokens.size(), 12u);
    EXPECT_EQ(rows.log_rest, std::vector<float>(12, -1));
    EXPECT_EQ(rows.logits[1], -1.5f);
  }
}

TEST(TeacherCacheCopies, GoesOnAfterEveryInterruption) {
  TempDir dir;
  write(dir / "whole", kThreeCopies, kThreeCopiesShardBytes, 5);
  const auto whole = files_of(dir / "whole");
  EXPECT_EQ(whole.size(), 4u);
  for (uint64_t killed_at = 0; killed_at < 15; ++killed_at) {  // after so many copies
    fs::remove_all(dir / "cache");
    {
      TeacherCacheWriter writer(dir / "cache", kThreeCopies, kThreeCopiesShardBytes);
      for (uint64_t i = 0; i < killed_at; ++i) add(writer, random_rows(kThreeCopies, i / 3, i % 3));
      EXPECT_EQ(writer.next_window(), killed_at / 3);
      EXPECT_SAYS(cat("found ", killed_at / 6 * 2), writer.finish());
    }
    EXPECT_EQ(TeacherCacheWriter(dir / "cache", kThreeCopies).next_window(), killed_at / 6 * 2);
    EXPECT_SAYS(cat("found ", killed_at / 6 * 2, " of 5 windows"), TeacherCache(dir / "cache"));
    write(dir / "cache", kThreeCopies, kThreeCopiesShardBytes, 5);
    EXPECT_EQ(files_of(dir / "cache"), whole) << killed_at;
  }
}

TEST(TeacherCacheCopies, OtherDrawsAreRefusedByName) {
  TempDir dir;
  write(dir / "cache", kThreeCopies, kThreeCopiesShardBytes, 5);
  using D = TeacherCacheDescription;
  const std::vector<std::pair<std::function<void(D&)>, const char*>> cases = {
      {[](D& d) { d.copies = 0; }, "copies: 3 in the cache, 0 here"},
      {[](D& d) { d.copies = 4; }, "copies: 3 in the cache, 4 here"},
      {[](D& d) { d.neighbourhood.rate = 0.3; }, "neighbourhood_rate: 0.15 in the cache, 0.3 here"},
      {[](D& d) { d.neighbourhood.top_k = 20; }, "neighbourhood_top_k: 40 in the cache, 20 here"},
      {[](D& d) { d.neighbourhood.temperature = 1.5; }, "neighbourhood_temperature: 2 in the cache, 1.5 here"},
      {[](D& d) { d.neighbourhood.depth = 2; }, "neighbourhood_depth: 1 in the cache, 2 here"},
      {[](D& d) { d.neighbourhood.source = "random"; }, "neighbourhood_source: teacher in the cache, random here"},
      {[](D& d) { d.neighbourhood.random_share = 0; }, "neighbourhood_random_share: 0.25 in the cache, 0 here"},
      {[](D& d) { d.neighbourhood.seed = 8; }, "neighbourhood_seed: 7 in the cache, 8 here"},
  };
  for (const auto& [change, expected] : cases) {
    D wanted = kThreeCopies;
    change(wanted);
    EXPECT_EQ(differences(kThreeCopies, wanted), std::vector<std::string>{expected});
    EXPECT_SAYS(expected, TeacherCacheWriter(dir / "cache", wanted));
    EXPECT_SAYS(expected, check_fits(TeacherCache(dir / "cache"), wanted));
  }
}

TEST(TeacherCacheCopies, DamageIsFound) {
  TempDir dir;
  const auto d = with_copies(describe(1, 3, 2, 100), 2);
  write(dir / "cache", d, 1 << 20, 1);
  for (const auto& [name, good] : files_of(dir / "cache")) {
    const size_t step = name == "manifest.json" ? 9 : 1;
    for (size_t bit = 0; bit < good.size() * 8; bit += step) {
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ 1 << bit % 8);
      test::write_file(dir / "cache" / name, bad);
      EXPECT_SAYS(dir.path().string(), read_all(TeacherCache(dir / "cache")));
    }
    for (size_t size = 0; size <= good.size() + 1; ++size) {
      if (size == good.size()) continue;
      test::write_file(dir / "cache" / name, size < good.size() ? good.substr(0, size) : good + '\0');
      EXPECT_SAYS(dir.path().string(), TeacherCache(dir / "cache"));
    }
    test::write_file(dir / "cache" / name, good);
  }
  EXPECT_EQ(read_all(TeacherCache(dir / "cache")).tokens.size(), 6u);
}

TEST(TeacherCacheCopies, LiesAreNamed) {  // with right checksums
  TempDir dir;
  write(dir / "cache", kThreeCopies, kThreeCopiesShardBytes, 5);
  const fs::path shard = dir / "cache/shard-00001.bin";
  const std::string good = test::read_file(shard);
  const auto lie = [&](const std::function<void(TeacherCacheShardHeader&, char*)>& change) {
    std::string bad = good;
    TeacherCacheShardHeader header;
    std::memcpy(&header, bad.data(), sizeof header);
    change(header, bad.data() + sizeof header);
    header.payload_crc = crc32c(std::as_bytes(std::span(bad)).subspan(sizeof header));
    header.header_crc = header.expected_crc();
    std::memcpy(bad.data(), &header, sizeof header);
    test::write_file(shard, bad);
  };
  lie([](auto& header, char*) { header.version = 1; });
  EXPECT_SAYS("version: expected 2, found 1", read_all(TeacherCache(dir / "cache")));
  lie([](auto&, char* windows) { windows[216 + 72] = 100; });  // the second copy of the second window
  EXPECT_SAYS("tokens: 100 in window 3 is outside the vocabulary of 100", read_all(TeacherCache(dir / "cache")));
  lie([](auto&, char* windows) { windows[216 + 72 + 8] = 100; });
  EXPECT_SAYS("ids: 100 in window 3 is outside the vocabulary of 100", read_all(TeacherCache(dir / "cache")));
  test::write_file(shard, good);

  const std::string manifest = test::read_file(dir / "cache/manifest.json");
  const std::vector<std::tuple<std::string, std::string, const char*>> cases = {
      {"\"copies\": 3", "\"copies\": 0", "copies: expected 1 to 1024, found 0"},
      {"\"copies\": 3", "\"copies\": 1025", "copies: expected 1 to 1024, found 1025"},
      {"\"copies\": 3", "\"copies\": -3", "copies: expected a whole number, found -3"},
      {"\"copies\": 3", "\"copies\": 4", "a shard of another cache, or manifest.json was edited"},
      {"0.15", "\"much\"", "neighbourhood_rate: expected a number, found string"},
      {"neighbourhood_seed", "seed", "expected the field neighbourhood_seed, found none"},
      {"\"version\": 2", "\"version\": 1", "version: expected 1, found 2"},
  };
  for (const auto& [from, to, expected] : cases) {
    std::string bad = manifest;
    ASSERT_NE(bad.find(from), std::string::npos) << from;
    test::write_file(dir / "cache/manifest.json", bad.replace(bad.find(from), from.size(), to));
    EXPECT_SAYS(expected, TeacherCache(dir / "cache"));
  }
}

TEST(TeacherCacheCopies, TokensMustBeTokens) {
  TempDir dir;
  TeacherCacheWriter writer(dir / "cache", kThreeCopies);
  TeacherRows rows = random_rows(kThreeCopies, 0);
  rows.tokens[1] = 100;
  EXPECT_THROW(add(writer, rows), InternalError);
  rows.tokens.clear();
  EXPECT_THROW(add(writer, rows), InternalError);
}

}  // namespace
}  // namespace satin::data
