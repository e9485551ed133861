// Every reader on damaged and hostile directories: a UserError or an opening whose tensors are what their shapes say,
// within bounds of memory and time. Mutations are drawn from a fixed seed.
#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <chrono>
#include <random>

#include "export/packed_format.h"

namespace satin::exporting {
namespace {

struct MutationCase {
  const char* format;
  quant::Scheme scheme;
  int64_t shard_bytes = io::kShardBytes;
};

void PrintTo(const MutationCase& c, std::ostream* out) { *out << c.format << " " << quant::describe(c.scheme); }

quant::Scheme scheme(Method method, int bits, int64_t group_size,
                     quant::Activations activations = quant::Activations::kNone) {
  quant::Scheme made = make_scheme(method, bits, group_size);
  made.activations = activations;
  return made;
}

class Mutation : public PackedFormat, public testing::WithParamInterface<MutationCase> {
 protected:
  std::mt19937 random{20261128};

  size_t below(size_t end) { return random() % end; }

  template <class T>
  const T& one_of(const std::vector<T>& values) {
    return values[below(values.size())];
  }

  nlohmann::json odd_value() {
    static const std::vector<nlohmann::json> kValues = {nullptr,
                                                        true,
                                                        0,
                                                        1,
                                                        -1,
                                                        3,
                                                        255,
                                                        int64_t{1} << 31,
                                                        int64_t{1} << 40,
                                                        INT64_MAX,
                                                        UINT64_MAX,
                                                        1e300,
                                                        .5,
                                                        "",
                                                        "int32",
                                                        "../../x",
                                                        "re:(a|aa)+[bc]",
                                                        std::string(5000, 'a'),
                                                        nlohmann::json::array(),
                                                        nlohmann::json::object(),
                                                        {{"num_bits", 4}},
                                                        {1, 2, 3}};
    return one_of(kValues);
  }

  /// Any value in it, also whole objects.
  nlohmann::json* any_place(nlohmann::json& json) {
    nlohmann::json* place = &json;
    while (place->is_structured() && !place->empty()) {
      auto child = place->begin();
      std::advance(child, below(place->size()));
      place = &*child;
      if (below(8) == 0) break;
    }
    return place;
  }

  std::string mutated_json(const std::string& text) {
    nlohmann::json json = nlohmann::json::parse(text);
    // Most often where the format is said, which is a small part of the file.
    nlohmann::json& part = json.contains("quantization_config") && below(3) ? json["quantization_config"] : json;
    nlohmann::json* place = any_place(part);
    if (place->is_object() && !place->empty() && below(2)) {
      auto child = place->begin();
      std::advance(child, below(place->size()));
      place->erase(child);
    } else {
      *place = odd_value();
    }
    return json.dump();
  }

  std::string mutated_bytes(std::string bytes, size_t end) {
    const size_t count = 1 + below(4);
    for (size_t i = 0; i < count; ++i) bytes[below(std::min(end, bytes.size()))] ^= static_cast<char>(1 << below(8));
    return bytes;
  }

  /// The header with one of its values changed, and its length with it.
  std::string mutated_header(const std::string& file) {
    const uint64_t size = *reinterpret_cast<const uint64_t*>(file.data());
    std::string header;
    if (below(2)) {
      header = mutated_json(file.substr(8, size));
    } else {  // another number in place of one that is there
      header = file.substr(8, size);
      size_t begin = header.find_first_of("0123456789", below(header.size()));
      if (begin == std::string::npos) begin = 0;
      const size_t last = header.find_first_not_of("0123456789", begin);
      static const std::vector<std::string> kNumbers = {
          "0", "1", "7", "128", "-1", "2147483648", "4294967296", "1e9", "9223372036854775807", "18446744073709551615"};
      header.replace(begin, last - begin, one_of(kNumbers));
    }
    const uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), 8) + header + file.substr(8 + size);
  }

  std::string mutated_file(const std::string& file) {
    switch (below(6)) {
      case 0:
        return file.substr(0, below(file.size()));
      case 1:
        return mutated_bytes(file, 8);
      case 2:
        return mutated_bytes(file, 8 + *reinterpret_cast<const uint64_t*>(file.data()));
      case 3:
        return mutated_bytes(file, file.size());
      default:
        return mutated_header(file);
    }
  }

  /// True when it opened; fails for anything but a UserError otherwise.
  bool opens(const fs::path& directory, const std::string& what) {
    try {
      const ShippedModel model = open_model(directory);
      for (const auto& tensor : model.tensors)
        EXPECT_EQ(tensor.values().sizes(), at::IntArrayRef(tensor.shape)) << what;
      build_decoder(model, {});
      return true;
    } catch (const UserError&) {
    } catch (const std::exception& error) {
      ADD_FAILURE() << what << ": " << error.what();
    }
    return false;
  }
};

int64_t peak_memory_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss >> 10;
}

TEST_P(Mutation, IsAUserErrorOrAnOpening) {
  biases = GetParam().format != std::string("bitnet");
  WriteOptions options;
  options.shard_bytes = GetParam().shard_bytes;
  export_model(make_model(GetParam().scheme, 0, 32), format(GetParam().format), dir / "good", false, options);
  std::map<std::string, std::string> good;
  for (const auto& entry : fs::directory_iterator(dir / "good"))
    good[entry.path().filename().string()] = test::read_file(entry.path());
  const auto write = [&](const std::string& name, const std::string& bytes) {
    test::write_file(dir / "bad" / name, bytes);
  };
  good.erase("README.md");  // not read, as the next
  good.erase("quantize_config.json");
  for (const auto& [name, bytes] : good) write(name, bytes);
  ASSERT_TRUE(opens(dir / "bad", "unchanged"));

  const int64_t memory = peak_memory_mib();
  const auto start = std::chrono::steady_clock::now();
  const int num_threads = at::get_num_threads();
  at::set_num_threads(1);  // small tensors
  int num_opened = 0;
  constexpr int kRounds = 120;
  for (int round = 0; round < kRounds; ++round) {
    auto file = good.begin();
    std::advance(file, below(good.size()));
    const bool json = file->first.ends_with(".json");
    const std::string bytes = !json      ? mutated_file(file->second)
                              : below(4) ? mutated_json(file->second)
                              : below(2) ? mutated_bytes(file->second, file->second.size())
                                         : file->second.substr(0, below(file->second.size()));
    write(file->first, bytes);
    num_opened += opens(dir / "bad", cat(GetParam().format, " round ", round, ", ", file->first,
                                         json ? ": " + bytes.substr(0, 3000) : ""));
    write(file->first, file->second);
  }
  at::set_num_threads(num_threads);
  EXPECT_GT(num_opened, 5);  // not all are refused for the same reason
  EXPECT_LT(num_opened, kRounds - 30);
  EXPECT_LT(peak_memory_mib() - memory, 300);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

INSTANTIATE_TEST_SUITE_P(
    Formats, Mutation,
    testing::Values(MutationCase{"hf", scheme(Method::kLsq, 4, 32)},
                    MutationCase{"hf", scheme(Method::kLsq, 4, 32), 20'000},
                    MutationCase{"compressed-tensors", scheme(Method::kLsqAsymmetric, 3, 32)},
                    MutationCase{"compressed-tensors", scheme(Method::kLsq, 8, -1, quant::Activations::kInt8)},
                    MutationCase{"compressed-tensors", scheme(Method::kLsq, 2, 32), 10'000},
                    MutationCase{"gptq", scheme(Method::kLsqAsymmetric, 4, 32)},
                    MutationCase{"gptq", scheme(Method::kLsq, 2, -1)},
                    MutationCase{"awq", scheme(Method::kLsqAsymmetric, 4, 32)},
                    MutationCase{"bitnet", scheme(Method::kTernary, 2, 0, quant::Activations::kInt8)}));

class HostileIndex : public PackedFormat {};

// What config.json says is checked with the tensors before memory is made for it.
TEST_F(PackedFormat, AbsurdSizesAreUserErrors) {
  export_model(make_model(scheme(Method::kLsq, 4, 32), 0, 32), format("gptq"), dir / "good", false);
  const auto good = nlohmann::json::parse(test::read_file(dir / "good/config.json"));
  const auto tensors = read_tensors(dir / "good");
  ASSERT_EQ(open_refusal(good, tensors), "");
  const int64_t memory = peak_memory_mib();
  for (const auto& [key, value] : good.items()) {
    if (!value.is_number()) continue;
    for (const nlohmann::json& absurd : std::vector<nlohmann::json>{0, -1, 1 << 20, int64_t{1} << 31, int64_t{1} << 40,
                                                                    INT64_MAX, UINT64_MAX, 1e300}) {
      auto changed = good;
      changed[key] = absurd;
      try {
        open_refusal(changed, tensors);
      } catch (const std::exception& error) {
        ADD_FAILURE() << key << " " << absurd << ": " << error.what();
      }
    }
  }
  EXPECT_LT(peak_memory_mib() - memory, 300);
}

TEST_F(HostileIndex, NamesFilesOfItsOwnDirectoryAlone) {
  WriteOptions options;
  options.shard_bytes = 20'000;
  export_model(make_model(make_scheme(Method::kLsq, 4, 64)), format("gptq"), dir / "good", false, options);
  io::write_safetensors(dir / "outside.safetensors", {{"model.norm.weight", at::ones({128}, at::kBFloat16)}});
  const auto index = nlohmann::json::parse(test::read_file(dir / "good/model.safetensors.index.json"));
  const std::string outside = (dir / "outside.safetensors").string();
  for (const std::string& shard :
       {std::string("../outside.safetensors"), outside, std::string("../../x"), std::string("."), std::string(".."),
        std::string(), std::string("a/../../outside.safetensors"), std::string("..\\outside.safetensors"),
        std::string("model\0.safetensors", 18), std::string("/dev/zero"), std::string(100'000, 'a')}) {
    auto changed = index;
    changed["weight_map"]["model.norm.weight"] = shard;
    test::write_file(dir / "good/model.safetensors.index.json", changed.dump());
    EXPECT_NE(refusal([&] { open_model(dir / "good"); }), "") << shard.substr(0, 100);
    for (auto& other : changed["weight_map"]) other = shard;
    test::write_file(dir / "good/model.safetensors.index.json", changed.dump());
    EXPECT_NE(refusal([&] { open_model(dir / "good"); }), "") << shard.substr(0, 100);
  }
}

}  // namespace
}  // namespace satin::exporting
