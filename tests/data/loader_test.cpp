#include "data/loader.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cstring>
#include <fstream>

#include "core/error.h"
#include "support/test_support.h"

namespace satin::data {
namespace {
using test::TempDir;
namespace fs = std::filesystem;

void write_counting(const fs::path& path, int32_t begin, int32_t end) {
  TokenFileWriter writer(path, {100'000, 0, false});
  for (int32_t i = begin; i < end; i += 10) {
    std::vector<int32_t> ids;
    for (int32_t k = i; k < std::min(i + 10, end); ++k) ids.push_back(k);
    writer.add_document(ids);
  }
  writer.finish();
}

class LoaderTest : public testing::Test {
 protected:
  LoaderTest() {
    write_counting(dir_ / "a", 0, 500);
    write_counting(dir_ / "b", 1000, 1200);
    dataset_.emplace(std::vector<Dataset::Source>{{"a", dir_ / "a", 3}, {"b", dir_ / "b", 2}},
                     Dataset::Options{.sequence_length = 7, .seed = 4});
  }
  TempDir dir_;
  std::optional<Dataset> dataset_;
};

TEST_F(LoaderTest, TheSequenceDoesNotDependOnTheBatchSize) {
  Sampler sampler = dataset_->sampler();
  std::vector<Sample> samples;
  for (int i = 0; i < 240; ++i) samples.push_back(sampler.next());
  const at::Tensor expected = dataset_->read(samples).tokens;
  for (const int64_t batch_size : {1, 2, 3, 5, 8, 240}) {
    Loader loader(*dataset_, {.share = {batch_size, batch_size}});
    for (int64_t begin = 0; begin < 240; begin += batch_size) {
      const Loader::Item item = loader.next();
      ASSERT_TRUE(at::equal(item.batch.tokens, expected.slice(0, begin, begin + batch_size)));
      EXPECT_EQ(item.batch.sample_ids[0], static_cast<uint64_t>(begin));
      EXPECT_EQ(item.batch.epoch, samples[begin].epoch);
      EXPECT_EQ(item.position.sample, static_cast<uint64_t>(begin + batch_size));
    }
  }
}

TEST_F(LoaderTest, ResumesAfterAnyBatch) {
  Loader whole(*dataset_, {.share = {3, 3}});
  std::vector<Loader::Item> items;
  for (int i = 0; i < 60; ++i) items.push_back(whole.next());
  for (size_t i = 0; i + 2 < items.size(); ++i) {
    Loader resumed(*dataset_, {.share = {3, 3}}, items[i].position);
    for (size_t k = i + 1; k < i + 3; ++k) {
      const Loader::Item item = resumed.next();
      ASSERT_TRUE(at::equal(item.batch.tokens, items[k].batch.tokens));
      ASSERT_TRUE(at::equal(item.batch.loss_mask, items[k].batch.loss_mask));
      ASSERT_EQ(item.batch.sample_ids, items[k].batch.sample_ids);
      ASSERT_EQ(item.position, items[k].position);
    }
  }
  EXPECT_THROW(Loader(*dataset_, {}, Position{1, {1, 0}, 12345}), UserError);
}

TEST_F(LoaderTest, StopsWhileWaiting) {
  for (int i = 0; i < 200; ++i) {
    Loader loader(*dataset_, {.share = {2, 2}, .num_ahead = 1});
    if (i % 3 == 0) loader.next();
  }
}

TEST_F(LoaderTest, ErrorsOfTheThreadComeOutOfNext) {
  std::string bytes = test::read_file(dir_ / "a");
  const uint32_t wrong = 200'000;
  std::memcpy(bytes.data() + 128 + 4 * 100, &wrong, 4);  // not seen before the window is read
  test::write_file(dir_ / "bad", bytes);
  const Dataset dataset({{"bad", dir_ / "bad"}}, {.sequence_length = 10, .shuffle = false});
  Loader loader(dataset, {});
  for (int i = 0; i < 10; ++i) loader.next();
  for (int i = 0; i < 2; ++i) {
    try {
      loader.next();
      FAIL();
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find("id 200000 within tokens 100 to 109"), std::string::npos)
          << error.what();
    }
  }
}

/// Memory of the process that is not a map of a file.
int64_t anonymous_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return std::stoll(line.substr(8));
  return 0;
}

TEST(LoaderSpeed, LargeFilesAreMappedNotLoaded) {
  TempDir dir;
  constexpr int64_t kTokens = 100'000'000, kDocument = 1000, kLength = 1024, kBatch = 16;
  const int64_t before_kib = anonymous_kib();
  {
    TokenFileWriter writer(dir / "large", {50'000, 0, false});
    const std::vector<int32_t> ids(kDocument, 49'999);
    for (int64_t i = 0; i < kTokens; i += kDocument) writer.add_document(ids);
    writer.finish();
  }
  EXPECT_GT(fs::file_size(dir / "large"), 200u << 20 >> 1);
  const Dataset dataset({{"large", dir / "large"}}, {.sequence_length = kLength});
  Loader loader(dataset, {.share = {kBatch, kBatch}});
  const auto start = std::chrono::steady_clock::now();
  int64_t tokens = 0;
  for (; tokens < kTokens; tokens += kBatch * kLength) loader.next();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const int64_t grown_kib = anonymous_kib() - before_kib;
  std::printf("loader: %.0f M tokens/s, %lld KiB more memory\n", tokens * 1e-6 / seconds,
              static_cast<long long>(grown_kib));
  EXPECT_LT(grown_kib, 64 << 10);
  EXPECT_GT(tokens / seconds, 5e6);  // a busy machine; idle it is above 100 M
}

}  // namespace
}  // namespace satin::data
