#include "data/dataset.h"

#include <map>
#include <random>

#include "byte_tokenizer.h"
#include "core/error.h"
#include "data/tokenise.h"
#include "support/test_support.h"

namespace satin::data {
namespace {
using test::TempDir;
namespace fs = std::filesystem;

/// What a file holds, a token at a time.
struct Flat {
  std::vector<int64_t> tokens;
  std::vector<int64_t> document;  ///< of each token
  std::vector<bool> scored;
};

Flat write_random(const fs::path& path, int num_documents, int longest, bool mask, unsigned seed) {
  std::mt19937 random(seed);
  Flat flat;
  TokenFileWriter writer(path, {1000, 0, mask});
  for (int d = 0; d < num_documents; ++d) {
    std::vector<int32_t> ids(1 + random() % longest);
    std::vector<uint8_t> scored(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      ids[i] = static_cast<int32_t>(random() % 1000);
      scored[i] = random() % 2;
      flat.tokens.push_back(ids[i]);
      flat.document.push_back(d);
      flat.scored.push_back(!mask || scored[i]);
    }
    writer.add_document(ids, scored);
  }
  writer.finish();
  return flat;
}

TEST(Dataset, WindowsAndMasksByBruteForce) {
  TempDir dir;
  for (const bool mask : {false, true})
    for (const bool across : {false, true})
      for (const int64_t length : {2, 5, 16}) {
        const Flat flat = write_random(dir / "a.tokens", 40, 12, mask, static_cast<unsigned>(length));
        const Dataset dataset({{"a", dir / "a.tokens"}}, {length, across, true, 1});
        ASSERT_EQ(dataset.num_windows(), flat.tokens.size() / length);
        Sampler sampler = dataset.sampler();
        std::vector<Sample> samples;
        for (uint64_t i = 0; i < dataset.num_windows(); ++i) samples.push_back(sampler.next());
        const Batch batch = dataset.read(samples);
        ASSERT_EQ(batch.tokens.sizes(), (std::vector<int64_t>{static_cast<int64_t>(samples.size()), length}));
        EXPECT_EQ(batch.document_ids.defined(), !across);
        for (size_t b = 0; b < samples.size(); ++b) {
          EXPECT_EQ(batch.sample_ids[b], b);
          int64_t id = 0;
          for (int64_t t = 0; t < length; ++t) {
            const size_t i = samples[b].window * length + t;
            const auto at = [&](const at::Tensor& tensor) { return tensor[b][t].item<int64_t>(); };
            const bool start = i == 0 || flat.document[i] != flat.document[i - 1];
            id += start;
            ASSERT_EQ(at(batch.tokens), flat.tokens[i]);
            ASSERT_EQ(at(batch.document_starts), start);
            const bool scored =
                t + 1 < length && flat.scored[i + 1] && (across || flat.document[i + 1] == flat.document[i]);
            ASSERT_EQ(at(batch.loss_mask), scored) << b << " " << t;
            if (!across) {
              ASSERT_EQ(at(batch.document_ids), id);
            }
          }
        }
      }
}

TEST(Dataset, ShortSourcesAndWrongSettingsSayWhatToDo) {
  TempDir dir;
  write_random(dir / "a.tokens", 1, 1, false, 0);
  try {
    Dataset({{"tiny", dir / "a.tokens"}}, {});
    FAIL();
  } catch (const UserError& error) {
    const std::string message = error.what();
    for (const char* part : {"tiny", "1 tokens", "sequence_length 1024", "lower"})
      EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  EXPECT_THROW(Dataset({}, {}), UserError);
  EXPECT_THROW(Dataset({{"a", dir / "a.tokens"}}, {.sequence_length = 1}), UserError);
  EXPECT_THROW(Dataset({{"a", dir / "absent.tokens"}}, {}), UserError);
}

TEST(Dataset, PositionsBelongToTheirData) {
  TempDir dir;
  write_random(dir / "a.tokens", 50, 12, false, 1);
  write_random(dir / "b.tokens", 50, 12, false, 2);
  const auto position = [&](const std::string& file, Dataset::Options options, double weight = 0) {
    Sampler sampler = Dataset({{"x", dir / file, weight}}, options).sampler();
    sampler.next();
    return sampler.position();
  };
  const Dataset::Options options{.sequence_length = 8, .seed = 5};
  const Position here = position("a.tokens", options);
  EXPECT_EQ(position("a.tokens", options), here);
  EXPECT_FALSE(position("b.tokens", options) == here);
  EXPECT_FALSE(position("a.tokens", {.sequence_length = 9, .seed = 5}) == here);
  EXPECT_FALSE(position("a.tokens", {.sequence_length = 8, .seed = 6}) == here);
  EXPECT_FALSE(position("a.tokens", {.sequence_length = 8, .shuffle = false, .seed = 5}) == here);
  EXPECT_FALSE(position("a.tokens", options, 2) == here);
}

TEST(Dataset, SummarisesTheMixture) {
  TempDir dir;
  for (const auto& [name, tokens] : {std::pair{"books", 6000}, std::pair{"maths", 2000}}) {
    TokenFileWriter writer(dir / name, {1000, 0, false});
    writer.add_document(std::vector<int32_t>(tokens - 5, 1));
    writer.add_document(std::vector<int32_t>(5, 2));
    writer.finish();
  }
  const Dataset weighted({{"books", dir / "books", 85}, {"maths", dir / "maths", 15}}, {.sequence_length = 100});
  EXPECT_EQ(weighted.mixture_summary(600),
            (std::vector<std::string>{"books: 2 documents, 6000 tokens, 85.0 % of the mixture, 8.50 epochs",
                                      "maths: 2 documents, 2000 tokens, 15.0 % of the mixture, 4.50 epochs"}));
  const Dataset natural({{"books", dir / "books"}, {"maths", dir / "maths"}}, {.sequence_length = 100});
  EXPECT_EQ(natural.mixture_summary(80)[1], "maths: 2 documents, 2000 tokens, 25.0 % of the mixture, 1.00 epochs");
}

TEST(Dataset, AnEpochReadsOneOfTheStoredCopies) {
  TempDir dir;
  write_random(dir / "a.tokens", 20, 12, false, 1);
  write_random(dir / "b.tokens", 9, 12, false, 2);
  Dataset dataset({{"a", dir / "a.tokens"}, {"b", dir / "b.tokens"}}, {.sequence_length = 4, .seed = 3});
  TeacherCacheDescription d;
  d.data_checksum = dataset.windows_checksum();
  d.num_windows = dataset.num_windows();
  d.sequence_length = 4, d.top_k = 1, d.vocab_size = 1000;
  d.copies = 3;
  {
    TeacherCacheWriter writer(dir / "cache", d);
    const std::vector<int32_t> ids(4);
    const std::vector<float> zeros(4);
    for (uint64_t window = 0; window < d.num_windows; ++window)
      for (uint64_t copy = 0; copy < 3; ++copy) {
        const auto which = static_cast<int32_t>(10 * window + copy);
        writer.add(ids, zeros, zeros, zeros, std::vector<int32_t>{which, which, which, 7});
      }
    writer.finish();
  }
  dataset.attach(std::make_shared<const TeacherCache>(dir / "cache"));
  Sampler sampler = dataset.sampler();
  std::vector<Sample> samples;
  for (uint64_t i = 0; i < 5 * dataset.num_windows(); ++i) samples.push_back(sampler.next());
  const Batch batch = dataset.read(samples);
  ASSERT_EQ(batch.teacher.tokens.sizes(), batch.tokens.sizes());
  std::map<uint64_t, uint64_t> times_read;  // by window: epochs follow each other
  for (size_t i = 0; i < samples.size(); ++i) {
    const uint64_t window = dataset.window_index(samples[i].source, samples[i].window);
    const at::Tensor row = batch.teacher.tokens[static_cast<int64_t>(i)];
    EXPECT_EQ(row[0].item<int64_t>(), static_cast<int64_t>(10 * window + times_read[window]++ % 3));
    EXPECT_EQ(row[3].item<int64_t>(), 7);
  }
  EXPECT_EQ(times_read.size(), dataset.num_windows());
}

TEST(Dataset, OpensConfiguredSources) {
  TempDir dir;
  test::write_file(dir / "a.jsonl", "{\"text\": \"abcdef\"}\n{\"text\": \"gh\"}\n");
  test::write_file(dir / "b.txt", "ijklmnop");
  config::DataSource a, b;
  a.path = (dir / "a.jsonl").string();
  b.path = (dir / "b.txt").string();
  b.name = "letters";
  const Dataset dataset =
      open_dataset({a, b}, byte_tokenizer(), dir / "cache", {.sequence_length = 4, .shuffle = false});
  EXPECT_EQ(dataset.num_windows(0), 3u);  // <s> abcdef </s> <s> gh </s>
  EXPECT_EQ(dataset.num_windows(1), 2u);  // <s> ijklmnop </s>
  const Batch batch = dataset.read({{0, 0, 2, 0}});
  EXPECT_EQ(batch.tokens[0][0].item<int64_t>(), kBos);
  EXPECT_EQ(batch.tokens[0][1].item<int64_t>(), 'g');
  EXPECT_NE(dataset.mixture_summary(5)[1].find("letters: 1 documents, 10 tokens"), std::string::npos);
  EXPECT_THROW(open_dataset({}, byte_tokenizer(), dir / "cache", {}), UserError);
}

}  // namespace
}  // namespace satin::data
