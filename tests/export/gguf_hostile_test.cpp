// Damaged and hostile GGUF files: a UserError that names the file, and no more memory than the file's size suggests.
#include <sys/resource.h>

#include <cstring>
#include <random>

#include "export/gguf_header.h"
#include "gguf_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace satin::exporting {
namespace {

template <class T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string text(const std::string& value) { return bytes_of(uint64_t{value.size()}) + value; }

/// A header of these keys and tensors (already in bytes), with `data` zeros behind it.
std::string file_of(uint64_t num_tensors, uint64_t num_keys, const std::string& body, size_t data = 0,
                    uint32_t version = 3) {
  std::string file = "GGUF" + bytes_of(version) + bytes_of(num_tensors) + bytes_of(num_keys) + body;
  file.resize((file.size() + 31) / 32 * 32 + data);
  return file;
}
std::string tensor(const std::string& name, const std::vector<int64_t>& sizes, uint32_t type, uint64_t offset) {
  std::string out = text(name) + bytes_of(static_cast<uint32_t>(sizes.size()));
  for (const int64_t size : sizes) out += bytes_of(size);
  return out + bytes_of(type) + bytes_of(offset);
}

std::string reason(const std::string& file) {
  try {
    gguf::parse_header(std::as_bytes(std::span(file)), "f.gguf");
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()).rfind("f.gguf: ", 0), 0u) << error.what();
    EXPECT_LT(std::strlen(error.what()), 1000u);
    return error.what();
  }
  return "accepted";
}

#define EXPECT_REASON(file, expected) EXPECT_NE(reason(file).find(expected), std::string::npos) << reason(file)

TEST(GgufHeader, LyingHeadersAreRefusedByName) {
  EXPECT_REASON("", "the first four bytes: the file ends there");
  EXPECT_REASON("GGML12345678", "expected a GGUF file");
  EXPECT_REASON(file_of(0, 0, "", 0, 1), "GGUF version 1, supported are 2 and 3");
  EXPECT_REASON(file_of(0, 0, "", 0, 3u << 24), "a big-endian GGUF file");
  EXPECT_EQ(reason(file_of(0, 0, "")), "accepted");
  const uint64_t huge = ~uint64_t{0} / 2;
  EXPECT_REASON(file_of(huge, 0, ""), "tensors: 9223372036854775807 of them");
  EXPECT_REASON(file_of(0, huge, ""), "keys: 9223372036854775807 of them");
  EXPECT_REASON(file_of(0, 1, bytes_of(huge) + "abc", 32), "a string of 9223372036854775807 bytes");
  EXPECT_REASON(file_of(0, 1, text("k") + bytes_of(9u) + bytes_of(8u) + bytes_of(huge), 32),
                "key \"k\": 9223372036854775807");
  EXPECT_REASON(file_of(0, 1, text("k") + bytes_of(9u) + bytes_of(9u) + bytes_of(huge), 32), "arrays of arrays");
  EXPECT_REASON(file_of(0, 1, text("k") + bytes_of(9u) + bytes_of(12u) + bytes_of(uint64_t{50}), 32),
                "50 of them, but");
  EXPECT_REASON(file_of(0, 1, text("k") + bytes_of(13u), 32), "value type 13");
  EXPECT_REASON(file_of(0, 1, text("k") + bytes_of(7u) + "\2", 32), "expected 0 or 1 for a bool");
  const std::string key = text("k") + bytes_of(7u) + "\1";
  EXPECT_REASON(file_of(0, 2, key + key, 32), "key \"k\" is found twice");
  const std::string alignment = text("general.alignment") + bytes_of(4u);
  EXPECT_REASON(file_of(0, 1, alignment + bytes_of(0u)), "expected 1 to");
  EXPECT_REASON(file_of(0, 1, alignment + bytes_of(48u)), "expected a power of two");
  EXPECT_REASON(file_of(0, 1, text("general.alignment") + bytes_of(8u) + text("32")), "expected a whole number");

  EXPECT_EQ(reason(file_of(2, 0, tensor("a", {4}, 0, 0) + tensor("b", {32, 2}, 2, 32), 32 + 36)), "accepted");
  EXPECT_REASON(file_of(2, 0, tensor("a", {4}, 0, 0) + tensor("b", {32, 2}, 2, 32), 32 + 35), "the file is truncated");
  EXPECT_REASON(file_of(2, 0, tensor("a", {4}, 0, 0) + tensor("b", {4}, 0, 16), 64), "expected its data at byte 32");
  EXPECT_REASON(file_of(2, 0, tensor("a", {4}, 0, 0) + tensor("a", {4}, 0, 32), 64), "tensor \"a\" is found twice");
  EXPECT_REASON(file_of(1, 0, tensor("a", {4}, 0, huge), 64), "expected its data at byte 0");
  EXPECT_REASON(file_of(1, 0, tensor("a", {0}, 0, 0), 64), "dimension 0 is 0");
  EXPECT_REASON(file_of(1, 0, tensor("a", {-4}, 0, 0), 64), "dimension 0 is -4");
  EXPECT_REASON(file_of(1, 0, tensor("a", {1 << 30, 1 << 30, 1 << 30}, 0, 0), 64), "dimension 1 is");
  EXPECT_REASON(file_of(1, 0, tensor("a", {int64_t{1} << 40}, 0, 0), 64), "the file is truncated");
  EXPECT_REASON(file_of(1, 0, tensor("a", {}, 0, 0), 64), "expected 1 to 4 dimensions, found 0");
  EXPECT_REASON(file_of(1, 0, tensor("a", {1, 1, 1, 1, 1}, 0, 0), 64), "found 5");
  EXPECT_REASON(file_of(1, 0, tensor("a", {33}, 2, 0), 64), "rows of 33 weights are not whole blocks of 32 (Q4_0)");
  EXPECT_REASON(file_of(1, 0, tensor("a", {256}, 16, 0), 99), "type IQ2_XXS (16) is not supported; supported: Q1_0");
  EXPECT_REASON(file_of(1, 0, tensor("a", {256}, 77, 0), 99), "type number 77 is not supported");
  EXPECT_REASON(file_of(1, 0, tensor(std::string(64, 'a'), {4}, 0, 0), 64), "names have 1 to 63 bytes");
}

TEST(GgufHeader, CorpusNeverCrashes) {
  int num_files = 0;
  for (const auto& entry : fs::directory_iterator(test::source_dir() / "tests/export/corpus/gguf")) {
    const std::string bytes = test::read_file(entry.path());
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    ++num_files;
  }
  EXPECT_GT(num_files, 10);
}

class HostileGguf : public GgufModel {
 protected:
  /// A small file with every kind of key: "" or the UserError's text of reading all of it.
  std::string whole_file() {
    const ShippedModel model =
        make_model(make_scheme(Method::kLsqAsymmetric, 2, 64),
                   {{"hidden_size", 64}, {"intermediate_size", 64}, {"head_dim", 16}, {"num_hidden_layers", 1}}, 0, 3,
                   /*all=*/true);
    export_model(model, format("gguf"), dir / "m.gguf", false);
    return test::read_file(dir / "m.gguf");
  }
  std::string read_all(const std::string& bytes) {
    test::write_file(dir / "bad.gguf", bytes);
    return refusal([&] {
      const ShippedModel model = open_model(dir / "bad.gguf");
      for (const auto& tensor : model.tensors) tensor.values();
      build_decoder(model, {});
      open_tokenizer(dir / "bad.gguf").encode("the 12 <word>");
    });
  }
};

TEST_F(HostileGguf, MutationsAreUserErrorsOrHarmless) {
  const std::string good = whole_file();
  ASSERT_EQ(read_all(good), "");
  const auto header_size = gguf::parse_header(std::as_bytes(std::span(good)), "good").data_begin;
  std::mt19937_64 random(7);
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  int num_refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    // Most of them in the header, where the structure is.
    const size_t place = random() % (i % 8 ? header_size : good.size() - 8);
    switch (random() % 5) {
      case 0:
        bad.resize(random() % good.size());
        break;
      case 1:
        bad[place] = static_cast<char>(bad[place] ^ (1 << random() % 8));
        break;
      case 2:
        std::memset(bad.data() + place, static_cast<int>(random() % 2 * 255), 8);
        break;
      case 3: {
        const uint64_t value = uint64_t{1} << random() % 64;
        std::memcpy(bad.data() + place, &value, 8);
        break;
      }
      default:
        bad.erase(place, random() % 9);
        bad.insert(random() % bad.size(), 1, static_cast<char>(random()));
    }
    num_refused += !read_all(bad).empty();
  }
  getrusage(RUSAGE_SELF, &after);
  EXPECT_GT(num_refused, 1000);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 300 << 10) << "KiB";
  std::printf("%d of 2000 refused\n", num_refused);
}

TEST_F(HostileGguf, KeysThatLieAreRefusedByName) {
  const std::string good = whole_file();
  const auto changed = [&](const std::string& key, const std::optional<gguf::Value>& value) {
    gguf::Header header = gguf::parse_header(std::as_bytes(std::span(good)), "good");
    const std::string data = good.substr(header.data_begin);
    std::erase_if(header.keys, [&](const auto& row) { return row.first == key; });
    if (value) header.keys.emplace_back(key, *value);
    return read_all(gguf::format_header(header) + data);
  };
  const auto own = [&](const char* pointer, const nlohmann::json& value, const std::string& key) {
    const gguf::Header header = gguf::parse_header(std::as_bytes(std::span(good)), "good");
    auto json = nlohmann::json::parse(std::get<std::string>(*header.find(key)));
    json[nlohmann::json::json_pointer(pointer)] = value;
    return changed(key, json.dump());
  };
  const std::pair<std::string, std::string> cases[] = {
      {changed("satin.zero_points.blk.0.attn_q.weight", std::nullopt), "expected 16 bytes, found none"},
      {changed("satin.zero_points.blk.0.attn_q.weight", std::vector<uint8_t>(15)), "expected 16 bytes, found 15"},
      {changed("satin.zero_points.blk.0.attn_q.weight", std::string("x")), "not an array of the expected type"},
      {changed("satin.zero_points.blk.0.attn_q.weight", std::vector<uint8_t>(16)),
       "a level that the grid does not have"},
      {changed("satin.tensor_schemes", std::vector<int32_t>(3)), "expected one for each of"},
      {changed("satin.tensor_schemes", std::vector<int32_t>(11, 9)), "there is no scheme 9"},
      {changed("satin.schemes", std::vector<std::string>{"{"}), "satin.schemes"},
      {changed("satin.schemes",
               std::vector<std::string>{
                   R"({"method":"lsq","bits":2,"group_size":48,"scale_dtype":"bfloat16","dequant_dtype":"bfloat16"})"}),
       "48"},
      {changed("satin.dequant_dtype", std::string("int8")), "satin.dequant_dtype is 'int8'"},
      {changed("satin.config", std::string(300, '[')), "satin.config"},
      {own("/vocab_size", 1 << 30, "satin.config"), "model.embed_tokens.weight: expected [1073741824, 64]"},
      {own("/num_hidden_layers", 1 << 30, "satin.config"), "there is no tensor for model.layers.1."},
      {own("/intermediate_size", 1 << 30, "satin.config"), "up_proj.weight: expected [1073741824, 64]"},
      {own("/num_attention_heads", 1 << 20, "satin.config"), "rows, found 64"},
      {own("/model_type", "gpt2", "satin.config"), "model_type"},
      {own("/bos", 1 << 20, "satin.tokenizer"), "is no token"},
      {own("/tokenizer_json", 7, "satin.tokenizer"), "its tokenizer"},
      {changed("tokenizer.ggml.model", std::string("llama")), "supported is gpt2"},
      {changed("tokenizer.ggml.tokens", std::vector<std::string>{"a"}), "token_type"},
      {changed("tokenizer.ggml.tokens", std::vector<std::string>(270, "\xff\xfe")), "its tokenizer"},
      {changed("tokenizer.ggml.merges", std::vector<std::string>{"a b c"}), "merge 0"},
      {changed("general.architecture", std::string("mamba")), "mamba"},
      {changed("split.count", uint16_t{3}), "one of several files"}};
  for (const auto& [found, expected] : cases)
    EXPECT_NE(found.find(expected), std::string::npos) << expected << ": " << found;
  // Without our keys the general ones count.
  gguf::Header header = gguf::parse_header(std::as_bytes(std::span(good)), "good");
  const std::string data = good.substr(header.data_begin);
  std::erase_if(header.keys, [](const auto& key) { return key.first.starts_with("satin."); });
  const auto foreign = [&](const std::string& key, const std::optional<gguf::Value>& value) {
    gguf::Header other = header;
    std::erase_if(other.keys, [&](const auto& row) { return row.first == key; });
    if (value) other.keys.emplace_back(key, *value);
    return read_all(gguf::format_header(other) + data);
  };
  EXPECT_EQ(foreign("x", uint8_t{1}), "");
  const std::pair<std::string, std::string> others[] = {
      {foreign("general.architecture", std::string("gemma3")), "general.architecture is 'gemma3', supported are llama"},
      {foreign("llama.embedding_length", std::nullopt), "llama.embedding_length: it is missing"},
      {foreign("llama.embedding_length", uint32_t{0}), "expected 1 to"},
      {foreign("llama.block_count", uint64_t{1} << 63), "expected a whole number"},
      {foreign("llama.attention.head_count", std::vector<int32_t>{4}), "expected a whole number"},
      {foreign("llama.rope.dimension_count", uint32_t{8}), "rotation of the whole head"},
      {foreign("llama.rope.scaling.type", std::string("yarn")), "'yarn'"},
      {foreign("llama.expert_count", uint32_t{8}), "mixtures of experts"},
      {foreign("llama.attention.layer_norm_rms_epsilon", std::numeric_limits<float>::quiet_NaN()), "expected a number"},
      {foreign("tokenizer.ggml.pre", std::string("tekken")), "tokenizer.ggml.pre is 'tekken', known are"},
      {foreign("tokenizer.ggml.bos_token_id", uint32_t{1 << 20}), "bos_token_id: expected 0 to 269"}};
  for (const auto& [found, expected] : others)
    EXPECT_NE(found.find(expected), std::string::npos) << expected << ": " << found;
}

}  // namespace
}  // namespace satin::exporting
