#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <thread>
#include <tuple>

#include "teacher_cache_support.h"

namespace satin::data {
namespace {

// 3 tokens of 2 ids: four arrays of 12 bytes, each filled up to 16, so 64 bytes a window.
const TeacherCacheDescription kSmall = describe(5, 3, 2, 100);
constexpr uint64_t kSmallShardBytes = 2 * 64 + 1;  // two windows: shards of 2, 2 and 1

TEST(TeacherCache, RoundTrip) {
  for (const int64_t vocab_size : {100, 65536, 65537, 1 << 30}) {
    TempDir dir;
    const auto d = describe(7, 9, 5, vocab_size);
    write(dir / "cache", d, 900, 7);
    const TeacherCache cache(dir / "cache");
    EXPECT_TRUE(differences(cache.description(), d).empty());
    EXPECT_EQ(cache.description().teacher, "models/teacher");
    EXPECT_EQ(cache.description().compute_dtype, "bfloat16");
    uint64_t bytes = 0;
    for (const auto& [name, file] : files_of(dir / "cache")) bytes += file.size();
    EXPECT_EQ(cache.bytes(), bytes);
    for (const uint64_t window : {6, 0, 3, 3, 1, 2, 4, 5}) {  // in any order
      const TeacherRows given = random_rows(d, window);
      TeacherRows read{{7}, {8}, {9}, {10}, {}};  // what is there stays
      cache.read(window, read);
      ASSERT_EQ(read.ids.size(), 1 + given.ids.size());
      EXPECT_TRUE(std::equal(given.ids.begin(), given.ids.end(), read.ids.begin() + 1));
      EXPECT_TRUE(std::equal(given.log_total.begin(), given.log_total.end(), read.log_total.begin() + 1));
      EXPECT_TRUE(std::equal(given.log_rest.begin(), given.log_rest.end(), read.log_rest.begin() + 1));
      EXPECT_EQ(read.logits[0], 8);
      for (size_t i = 0; i < given.logits.size(); ++i) {
        const float x = given.logits[i], y = read.logits[i + 1];
        if (std::isinf(x) || x < -65504)
          EXPECT_EQ(y, std::max(x, std::isinf(x) ? x : -65504.0f));
        else  // 11 significant bits, or the spacing of subnormals
          EXPECT_LE(std::abs(y - x), std::max(-x * 0x1p-11f, 0x1p-25f)) << x;
      }
    }
  }
}

TEST(TeacherCache, PythonReadsWhatIsWritten) {
  SATIN_NEEDS_PYTHON("numpy");
  TempDir dir;
  const auto check = [&](const TeacherCacheDescription& d, uint64_t shard_bytes,
                         const std::function<TeacherRows(uint64_t)>& rows_of) {
    fs::remove_all(dir / "cache");
    TeacherCacheWriter writer(dir / "cache", d, shard_bytes);
    std::string given;
    const auto append = [&](const auto& values) {
      given.append(reinterpret_cast<const char*>(values.data()), values.size() * 4);
    };
    for (uint64_t window = 0; window < d.num_windows; ++window) {
      const TeacherRows rows = rows_of(window);
      append(rows.ids), append(rows.logits), append(rows.log_total), append(rows.log_rest);
      add(writer, rows);
    }
    writer.finish();
    test::write_file(dir / "rows", given);
    const auto result =
        test::run_python("data/teacher_cache.py check " + (dir / "cache").string() + " " + (dir / "rows").string());
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return result.output;
  };
  for (const auto& d : {describe(5, 3, 2, 65536), describe(5, 7, 3, 65537)})
    EXPECT_EQ(check(d, 900, [&](uint64_t window) { return random_rows(d, window); }),
              d.sequence_length == 3 ? "5 windows in 1 shards agree\n" : "5 windows in 2 shards agree\n");
  // Rounding: between each two neighbouring fp16 numbers the middle, and what is just beside it.
  const int64_t num_halves = 0x7c00;
  const auto d = describe(3, num_halves, 1, 10);
  const auto middles = [&](uint64_t window) {
    TeacherRows rows{
        std::vector<int32_t>(num_halves), {}, std::vector<float>(num_halves), std::vector<float>(num_halves)};
    for (int bits = 0; bits < num_halves; ++bits) {
      const int exponent = std::max(bits >> 10, 1);
      const double spacing = std::ldexp(1, exponent - 25), size = (bits & 1023) + (bits >> 10 ? 1024 : 0);
      const float middle = static_cast<float>(-(size + .5) * spacing);
      rows.logits.push_back(window == 0 ? middle : std::nextafter(middle, window == 1 ? 0.0f : -INFINITY));
    }
    return rows;
  };
  EXPECT_EQ(check(d, 1 << 21, middles), "3 windows in 1 shards agree\n");
}

TEST(TeacherCache, ReadsWhatPythonWrites) {
  SATIN_NEEDS_PYTHON("numpy");
  TempDir dir;
  const auto result = test::run_python("data/teacher_cache.py write " + (dir / "cache").string());
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const TeacherCache cache(dir / "cache");
  EXPECT_TRUE(cache.description().attention_across_documents);
  EXPECT_EQ(cache.description().teacher_checksum, 4294967295u);
  const TeacherRows rows = read_all(cache);
  ASSERT_EQ(rows.logits.size(), 0x7c01u);
  for (int bits = 0; bits <= 0x7c00; ++bits) {
    const auto i = static_cast<size_t>(bits);
    const double normal = std::ldexp(1 + (bits & 1023) / 1024., (bits >> 10) - 15);
    const double size = bits == 0x7c00 ? INFINITY : bits < 1024 ? std::ldexp(bits, -24) : normal;
    ASSERT_EQ(rows.logits[i], -size) << bits;
    ASSERT_EQ(rows.ids[i], 65536 - bits);
    ASSERT_EQ(rows.log_total[i], bits / 8.f);
    ASSERT_EQ(rows.log_rest[i], -INFINITY);
  }
}

TEST(TeacherCache, GoesOnAfterEveryInterruption) {
  TempDir dir;
  write(dir / "whole", kSmall, kSmallShardBytes, 5);
  const auto whole = files_of(dir / "whole");
  EXPECT_EQ(whole.size(), 4u);
  for (uint64_t killed_at = 0; killed_at <= 5; ++killed_at) {
    fs::remove_all(dir / "cache");
    write(dir / "cache", kSmall, kSmallShardBytes, killed_at == 5 ? 4 : killed_at);
    if (killed_at == 5) {  // the last window in a second run, without finish()
      TeacherCacheWriter writer(dir / "cache", kSmall);
      add(writer, random_rows(kSmall, writer.next_window()));
    }
    const uint64_t kept = killed_at == 5 ? 5 : killed_at / 2 * 2;
    if (kept < 5) EXPECT_SAYS(cat("found ", kept, " of 5 windows"), TeacherCache(dir / "cache"));
    const std::string partial = cat("shard-0000", kept / 2, ".bin.partial");
    if (kept < 5) test::write_file(dir / "cache" / partial, "what a killed process had written of the next shard");
    {
      auto moved = kSmall;  // people's fields may differ; another wish for the shards' size has no effect
      moved.teacher = "elsewhere/teacher";
      TeacherCacheWriter writer(dir / "cache", moved, 1 << 20);
      EXPECT_EQ(writer.next_window(), kept);
      if (kept < 5) EXPECT_SAYS(cat("expected 5 windows of the teacher, found ", kept), writer.finish());
    }
    write(dir / "cache", kSmall, kSmallShardBytes, 5);
    EXPECT_EQ(files_of(dir / "cache"), whole) << killed_at;
  }
  EXPECT_EQ(TeacherCacheWriter(dir / "whole", kSmall).next_window(), 5u);
  fs::remove(dir / "whole/shard-00001.bin");  // as messages advise: only what is missing decides
  EXPECT_SAYS("found 2 of 5 windows", TeacherCache(dir / "whole"));
  write(dir / "whole", kSmall, kSmallShardBytes, 4);
  EXPECT_EQ(files_of(dir / "whole"), whole);
}

/// Three writers at once, of which one is stopped early; what it left is added by two.
TEST(TeacherCache, WritersShareTheShards) {
  TempDir dir;
  const auto d = describe(23, 3, 2, 100);
  write(dir / "whole", d, kSmallShardBytes, 23);
  const auto fill = [&](std::vector<uint64_t> ends) {
    std::vector<std::unique_ptr<TeacherCacheWriter>> writers;
    for (uint64_t i = 0; i < ends.size(); ++i)
      writers.push_back(std::make_unique<TeacherCacheWriter>(dir / "cache", d, kSmallShardBytes,
                                                             TeacherCacheWriter::Share{i, ends.size()}));
    uint64_t left = 0;
    for (uint64_t i = 0; i < ends.size(); ++i) {
      while (writers[i]->next_window() < ends[i]) {
        EXPECT_EQ(writers[i]->next_window() / 2 % ends.size(), i);
        EXPECT_EQ(writers[i]->end_of_shard(), std::min<uint64_t>(writers[i]->next_window() / 2 * 2 + 2, 23));
        add(*writers[i], random_rows(d, writers[i]->next_window()));
      }
      left += writers[i]->windows_left();
    }
    if (left == 0) writers[0]->finish();
    return left;
  };
  EXPECT_EQ(fill({23, 10, 23}), 4u);  // number 1 has windows 2 3, 8 9, 14 15, 20 21
  EXPECT_SAYS("found 14 of 23 windows", TeacherCache(dir / "cache"));
  EXPECT_EQ(fill({23, 23}), 0u);
  EXPECT_EQ(files_of(dir / "cache"), files_of(dir / "whole"));
}

TEST(TeacherCache, AnotherDescriptionIsRefused) {
  TempDir dir;
  write(dir / "cache", kSmall, kSmallShardBytes, 3);
  const auto before = files_of(dir / "cache");
  using D = TeacherCacheDescription;
  const std::vector<std::pair<std::function<void(D&)>, const char*>> cases = {
      {[](D& d) { d.teacher_checksum = 12; }, "teacher_checksum: 11 in the cache, 12 here"},
      {[](D& d) { d.tokenizer_fingerprint = 0; }, "tokenizer_fingerprint: 22 in the cache, 0 here"},
      {[](D& d) { d.data_checksum = 34; }, "data_checksum: 33 in the cache, 34 here"},
      {[](D& d) { d.num_windows = 6; }, "num_windows: 5 in the cache, 6 here"},
      {[](D& d) { d.sequence_length = 4; }, "sequence_length: 3 in the cache, 4 here"},
      {[](D& d) { d.top_k = 64; }, "top_k: 2 in the cache, 64 here"},
      {[](D& d) { d.vocab_size = 101; }, "vocab_size: 100 in the cache, 101 here"},
      {[](D& d) { d.attention_across_documents = true; }, "attention_across_documents: false in the cache, true here"},
  };
  for (const auto& [change, expected] : cases) {
    D wanted = kSmall;
    change(wanted);
    EXPECT_EQ(differences(kSmall, wanted), std::vector<std::string>{expected});
    EXPECT_SAYS(expected, TeacherCacheWriter(dir / "cache", wanted));
    EXPECT_SAYS("give another directory, or remove this one", TeacherCacheWriter(dir / "cache", wanted));
  }
  D wanted = kSmall;
  wanted.teacher = wanted.compute_dtype = "else", wanted.data_checksum = 0, wanted.num_windows = 0;
  EXPECT_TRUE(differences(kSmall, wanted).empty());
  wanted.top_k = 3, wanted.vocab_size = 4;
  EXPECT_EQ(differences(kSmall, wanted).size(), 2u);
  EXPECT_EQ(files_of(dir / "cache"), before);
  const TeacherCacheWriter writer(dir / "cache", kSmall);
  EXPECT_SAYS("another process", TeacherCacheWriter(dir / "cache", kSmall));
}

TEST(TeacherCache, EveryFlippedBitIsFound) {
  TempDir dir;
  const auto d = describe(1, 3, 2, 100);
  write(dir / "cache", d, 1 << 20, 1);
  for (const auto& [name, good] : files_of(dir / "cache")) {
    const size_t step = name == "manifest.json" ? 9 : 1;  // of the manifest one bit a byte, to save time
    for (size_t bit = 0; bit < good.size() * 8; bit += step) {
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ 1 << bit % 8);
      test::write_file(dir / "cache" / name, bad);
      EXPECT_SAYS(dir.path().string(), read_all(TeacherCache(dir / "cache")));
    }
    test::write_file(dir / "cache" / name, good);
  }
  EXPECT_EQ(read_all(TeacherCache(dir / "cache")).log_rest.size(), 3u);
}

TEST(TeacherCache, EveryTruncationAndExtensionIsRefused) {
  TempDir dir;
  write(dir / "cache", kSmall, kSmallShardBytes, 5);
  for (const auto& [name, good] : files_of(dir / "cache")) {
    for (size_t size = 0; size <= good.size() + 1; ++size) {
      if (size == good.size()) continue;
      test::write_file(dir / "cache" / name, size < good.size() ? good.substr(0, size) : good + '\0');
      EXPECT_SAYS(dir.path().string(), TeacherCache(dir / "cache"));
      EXPECT_SAYS(dir.path().string(), TeacherCacheWriter(dir / "cache", kSmall));
    }
    test::write_file(dir / "cache" / name, good);
  }
}

TEST(TeacherCache, LiesAreNamed) {  // with right checksums
  TempDir dir;
  write(dir / "cache", kSmall, kSmallShardBytes, 5);
  const fs::path shard = dir / "cache/shard-00001.bin";
  const std::string good = test::read_file(shard);
  using H = TeacherCacheShardHeader;
  const auto lie = [&](const std::function<void(H&, char*)>& change) {
    std::string bad = good;
    H header;
    std::memcpy(&header, bad.data(), sizeof header);
    header.payload_crc = 0;
    change(header, bad.data() + sizeof header);
    if (header.payload_crc == 0) header.payload_crc = crc32c(std::as_bytes(std::span(bad)).subspan(sizeof header));
    header.header_crc = 0;
    header.header_crc = crc32c(std::as_bytes(std::span(&header, 1)));
    std::memcpy(bad.data(), &header, sizeof header);
    test::write_file(shard, bad);
  };
  const std::vector<std::pair<std::function<void(H&, char*)>, const char*>> cases = {
      {[](H& h, char*) { h.magic[0] = 'X'; }, "magic"},
      {[](H& h, char*) { h.version = 2; }, "version: expected 1, found 2"},
      {[](H& h, char*) { h.manifest_crc ^= 1; }, "a shard of another cache"},
      {[](H& h, char*) { h.index = 2; }, "index: expected 1, found 2"},
      {[](H& h, char*) { h.first_window = 3; }, "first window: expected 2, found 3"},
      {[](H& h, char*) { h.num_windows = 1; }, "number of windows: expected 2, found 1"},
      {[](H& h, char*) { h.window_bytes = 32; }, "bytes a window: expected 64, found 32"},
      {[](H& h, char*) { h.payload_crc = 1; }, "windows: checksum expected 1"},
      {[](H& h, char*) { h.reserved[11] = 1; }, "reserved"},
      {[](H&, char* windows) { windows[64] = 100; }, "ids: 100 in window 3 is outside the vocabulary of 100"},
  };
  for (const auto& [change, expected] : cases) {
    lie(change);
    EXPECT_SAYS(expected, read_all(TeacherCache(dir / "cache")));
    EXPECT_SAYS("shard-00001.bin", read_all(TeacherCache(dir / "cache")));
    EXPECT_SAYS("remove this file and run `satin cache-teacher` again", read_all(TeacherCache(dir / "cache")));
  }
  fs::copy_file(dir / "cache/shard-00000.bin", shard, fs::copy_options::overwrite_existing);
  EXPECT_SAYS("index: expected 1, found 0", TeacherCache(dir / "cache"));
  auto other = kSmall;
  other.data_checksum = 34;
  write(dir / "other", other, kSmallShardBytes, 5);
  fs::copy_file(dir / "other/shard-00001.bin", shard, fs::copy_options::overwrite_existing);
  EXPECT_SAYS("a shard of another cache", TeacherCache(dir / "cache"));
  EXPECT_SAYS("a shard of another cache", TeacherCacheWriter(dir / "cache", kSmall));
}

TEST(TeacherCache, ManifestsThatAreWrongAreNamed) {
  TempDir dir;
  EXPECT_SAYS("found no manifest.json", TeacherCache(dir / "absent"));
  write(dir / "cache", kSmall, kSmallShardBytes, 5);
  const std::string good = test::read_file(dir / "cache/manifest.json");
  const std::vector<std::tuple<std::string, std::string, const char*>> cases = {
      {"{", "[", "expected a JSON object"},
      {"\"satin-teacher-cache\"", "\"other\"", "format: expected satin-teacher-cache, found other"},
      {"\"version\": 1", "\"version\": 3", "version: expected 1 to 2, found 3"},
      {"\"version\": 1", "\"version\": 2", "expected the field copies, found none"},
      {"\"teacher\"", "\"tutor\"", "expected the field teacher, found none"},
      {"\"models/teacher\"", "[[1], 2]", "teacher: expected a string, found array"},
      {"\"top_k\": 2", "\"top_k\": -2", "top_k: expected a whole number, found -2"},
      {"\"top_k\": 2", "\"top_k\": 2.5", "top_k: expected a whole number, found 2.5"},
      {"\"top_k\": 2", "\"top_k\": 18446744073709551615", "top_k: expected a whole number, found 1844"},
      {"\"top_k\": 2", "\"top_k\": 0", "top_k: expected 1 to"},
      {"\"sequence_length\": 3", "\"sequence_length\": 99999999999", "sequence_length: expected 1 to"},
      {"\"vocab_size\": 100", "\"vocab_size\": null", "vocab_size: expected a whole number, found null"},
      {"\"num_windows\": 5", "\"num_windows\": 0", "num_windows: expected 1 to"},
      {"\"num_windows\": 5", "\"num_windows\": 7", "a shard of another cache, or manifest.json was edited"},
      {"\"windows_per_shard\": 2", "\"windows_per_shard\": 6", "windows_per_shard: expected 1 to 5, found 6"},
      {"\"windows_per_shard\": 2", "\"windows_per_shard\": 0", "windows_per_shard: expected 1 to 5, found 0"},
      {"checksum\": 11", "checksum\": 4294967296", "teacher_checksum: expected a whole number below 2^32, found 429"},
      {"false", "0", "attention_across_documents: expected true or false, found 0"},
  };
  for (const auto& [from, to, expected] : cases) {
    std::string bad = good;
    ASSERT_NE(bad.find(from), std::string::npos) << from;
    test::write_file(dir / "cache/manifest.json", bad.replace(bad.find(from), from.size(), to));
    EXPECT_SAYS(expected, TeacherCache(dir / "cache"));
    EXPECT_SAYS((dir / "cache").string(), TeacherCache(dir / "cache"));
  }
}

TEST(TeacherCache, ThreadsReadTheSameRows) {
  TempDir dir;
  const auto d = describe(24, 16, 8, 1000);
  write(dir / "cache", d, 2000, 24);
  const TeacherRows expected = read_all(TeacherCache(dir / "cache"));
  const TeacherCache cache(dir / "cache");  // no shard is checked yet
  std::vector<TeacherRows> rows(8);
  std::vector<std::thread> threads;
  for (TeacherRows& mine : rows) threads.emplace_back([&] { mine = read_all(cache); });
  for (std::thread& thread : threads) thread.join();
  for (const TeacherRows& mine : rows) EXPECT_TRUE(same(mine, expected));
}

TEST(TeacherCacheWriter, RefusesRowsThatAreNoTeachers) {
  TempDir dir;
  TeacherCacheWriter writer(dir / "cache", kSmall);
  const auto with = [&](const std::function<void(TeacherRows&)>& change) {
    TeacherRows rows = random_rows(kSmall, 0);
    rows.logits = {0, -1, 0, -2, 0, -3};
    change(rows);
    add(writer, rows);
  };
  EXPECT_SAYS("window 0, token 1: expected finite logits", with([](TeacherRows& r) { r.logits[3] = NAN; }));
  EXPECT_SAYS("window 0, token 2: expected finite logits", with([](TeacherRows& r) { r.log_total[2] = INFINITY; }));
  EXPECT_SAYS("window 0, token 0: expected finite logits", with([](TeacherRows& r) { r.log_rest[0] = NAN; }));
  EXPECT_THROW(with([](TeacherRows& r) { r.ids[5] = 100; }), InternalError);
  EXPECT_THROW(with([](TeacherRows& r) { r.ids[0] = -1; }), InternalError);
  EXPECT_THROW(with([](TeacherRows& r) { r.logits[0] = 1; }), InternalError);
  EXPECT_THROW(with([](TeacherRows& r) { std::swap(r.logits[0], r.logits[1]); }), InternalError);
  EXPECT_THROW(with([](TeacherRows& r) { r.log_rest.pop_back(); }), InternalError);
  EXPECT_EQ(writer.next_window(), 0u);
}

TEST(TeacherCacheWriter, FailedWriteLeavesCompleteShards) {
  TempDir dir;
  const auto d = describe(4, 1024, 64, 100);  // 272 KiB a window
  write(dir / "cache", d, 1 << 19, 1);
  const auto before = files_of(dir / "cache");
  EXPECT_EQ(before.size(), 2u);
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes fails writes as a full disk does
  rlimit old_limit{};
  ::getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit limit{1 << 16, old_limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::string message, unfinished;
  {
    TeacherCacheWriter writer(dir / "cache", d);
    message = message_of([&] {
      while (writer.next_window() < 4) add(writer, random_rows(d, writer.next_window()));
    });
    unfinished = message_of([&] { writer.finish(); });
  }
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  EXPECT_NE(unfinished.find("expected 4 windows of the teacher, found 1"), std::string::npos) << unfinished;
  EXPECT_NE(message.find("File too large"), std::string::npos) << message;
  EXPECT_EQ(files_of(dir / "cache"), before);
  write(dir / "cache", d, 1 << 19, 4);
  TeacherCache(dir / "cache");
  test::write_file(dir / "file", "");
  EXPECT_SAYS("cannot create", TeacherCacheWriter(dir / "file", d));
}

}  // namespace
}  // namespace satin::data
