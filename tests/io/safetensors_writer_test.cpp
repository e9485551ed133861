// Pieces in any order from several threads: the same files as all at once, in shards where asked.
#include "io/safetensors_writer.h"

#include <ATen/Functions.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "core/error.h"
#include "io/safetensors.h"
#include "support/test_support.h"

namespace satin::io {
namespace {

std::vector<std::pair<std::string, at::Tensor>> some_tensors() {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (int i = 0; i < 20; ++i)
    tensors.emplace_back(cat("layer.", i), at::arange(i, i + 100)
                                               .to(i % 3 == 0   ? at::kByte
                                                   : i % 3 == 1 ? at::kFloat
                                                                : at::kHalf));
  return tensors;
}

std::vector<TensorSpec> specs_of(const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, value] : tensors) specs.push_back({name, value.scalar_type(), value.sizes().vec()});
  return specs;
}

/// From three threads, backwards.
void write_all(SafetensorsWriter& writer, const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (size_t i = tensors.size(); i-- > 0;)
        if (i % 3 == t) writer.write(tensors[i].first, tensors[i].second);
    });
  for (auto& thread : threads) thread.join();
  writer.commit();
}

}  // namespace

TEST(SafetensorsWriter, OneFileHasTheBytesOfAllAtOnce) {
  test::TempDir dir;
  const auto tensors = some_tensors();
  SafetensorsWriter writer(dir.path(), specs_of(tensors));
  write_all(writer, tensors);
  write_safetensors(dir / "once.safetensors", tensors);
  EXPECT_EQ(test::read_file(dir / "model.safetensors"), test::read_file(dir / "once.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(dir / "model.safetensors.index.json"));
}

TEST(SafetensorsWriter, ShardsHoldAtMostTheirSizeAndTheIndexNamesThem) {
  test::TempDir dir;
  const auto tensors = some_tensors();
  int64_t total = 0;
  for (const auto& tensor : tensors) total += static_cast<int64_t>(tensor.second.nbytes());
  for (const int64_t shard_bytes : {int64_t{1}, int64_t{300}, int64_t{1000}, total - 1}) {
    const auto folder = dir / cat(shard_bytes);
    std::filesystem::create_directory(folder);
    SafetensorsWriter writer(folder, specs_of(tensors), shard_bytes);
    write_all(writer, tensors);
    const auto index = nlohmann::json::parse(test::read_file(folder / "model.safetensors.index.json"));
    EXPECT_EQ(index["metadata"]["total_size"], total);
    EXPECT_EQ(index["weight_map"].size(), tensors.size());
    std::map<std::string, int64_t> bytes, counts;
    for (const auto& [name, value] : tensors) {
      const std::string shard = index["weight_map"][name];
      EXPECT_TRUE(SafetensorsFile(folder / shard).tensor(name).equal(value)) << name;
      bytes[shard] += static_cast<int64_t>(value.nbytes());
      ++counts[shard];
    }
    const std::string last = cat("-of-000", bytes.size() < 10 ? "0" : "", bytes.size(), ".safetensors");
    EXPECT_EQ(bytes.begin()->first, "model-00001" + last);
    for (const auto& [shard, size] : bytes) EXPECT_TRUE(size <= shard_bytes || counts[shard] == 1) << shard;
    EXPECT_EQ(TensorDirectory(folder).names().size(), tensors.size());
  }
}

TEST(SafetensorsWriter, NothingAppearsWithoutACommit) {
  test::TempDir dir;
  const auto tensors = some_tensors();
  {
    SafetensorsWriter writer(dir.path(), specs_of(tensors), 300);
    writer.write(tensors[0].first, tensors[0].second);
    EXPECT_THROW(writer.commit(), InternalError);                                    // tensors are missing
    EXPECT_THROW(writer.write(tensors[1].first, tensors[0].second), InternalError);  // another dtype than announced
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace satin::io
