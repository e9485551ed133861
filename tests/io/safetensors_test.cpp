// Files exchanged with the reference library in both directions.
#include "io/safetensors.h"

#include <ATen/Functions.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>

#include "core/error.h"
#include "support/test_support.h"

namespace satin::io {
using test::TempDir;

namespace {

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.numel() == 0 ||
          std::memcmp(a.contiguous().const_data_ptr(), b.contiguous().const_data_ptr(), a.nbytes()) == 0);
}

/// One tensor of every dtype; element i is i - 2 (bool: i odd), as safetensors_reference.py has it.
std::vector<std::pair<std::string, at::Tensor>> every_dtype() {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (auto type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2, at::kLong,
                    at::kInt, at::kShort, at::kChar})
    tensors.emplace_back(at::toString(type), at::arange(-2, 4, at::kFloat).view({2, 3}).to(type));
  for (auto type : {at::kUInt64, at::kUInt32, at::kUInt16, at::kByte})
    tensors.emplace_back(at::toString(type), at::arange(0, 6, at::kInt).view({2, 3}).to(type));
  tensors.emplace_back("Bool", at::arange(0, 3, at::kInt).remainder(2).to(at::kBool));
  tensors.emplace_back("scalar", at::scalar_tensor(2.5, at::kFloat));
  tensors.emplace_back("empty", at::empty({0, 4}, at::kHalf));
  return tensors;
}

}  // namespace

TEST(Safetensors, RoundTripOfEveryDtype) {
  TempDir dir;
  write_safetensors(dir / "x.safetensors", every_dtype(), {{"format", "pt"}, {"note", "a \"b\" \xc3\xa9"}});
  const SafetensorsFile file(dir / "x.safetensors");
  EXPECT_EQ(file.metadata().at("note"), "a \"b\" \xc3\xa9");
  EXPECT_EQ(file.tensors().size(), every_dtype().size());
  for (const auto& [name, value] : every_dtype()) EXPECT_TRUE(same_bytes(file.tensor(name), value)) << name;
}

TEST(Safetensors, WritesAnyStrides) {
  TempDir dir;
  const at::Tensor matrix = at::arange(0, 12, at::kFloat).view({3, 4});
  write_safetensors(dir / "x.safetensors", {{"t", matrix.t()}, {"column", matrix.select(1, 2)}});
  const SafetensorsFile file(dir / "x.safetensors");
  EXPECT_TRUE(at::equal(file.tensor("t"), matrix.t()));
  EXPECT_TRUE(at::equal(file.tensor("column"), matrix.select(1, 2)));
}

TEST(Safetensors, TensorsKeepTheMapAlive) {
  TempDir dir;
  write_safetensors(dir / "x.safetensors", {{"a", at::arange(0, 100'000, at::kInt)}});
  at::Tensor kept;
  {
    const SafetensorsFile file(dir / "x.safetensors");
    kept = file.tensor("a");
    EXPECT_EQ(kept.const_data_ptr(), file.tensor("a").const_data_ptr()) << "a view, not a copy";
  }
  std::filesystem::remove(dir / "x.safetensors");
  EXPECT_TRUE(at::equal(kept, at::arange(0, 100'000, at::kInt)));
}

TEST(Safetensors, UnalignedDataIsCopied) {
  TempDir dir;
  const std::string json =
      R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";  // not padded: the data is at an odd byte
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(json.size());
  const float values[] = {1.5f, -2.f};
  bytes += json + std::string(reinterpret_cast<const char*>(values), 8);
  ASSERT_NE(json.size() % 4, 0u);
  test::write_file(dir / "x.safetensors", bytes);
  const at::Tensor w = SafetensorsFile(dir / "x.safetensors").tensor("w");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(w.const_data_ptr()) % 4, 0u);
  EXPECT_EQ(w[0].item<float>(), 1.5f);
  EXPECT_EQ(w[1].item<float>(), -2.f);
}

TEST(Safetensors, RowsAreThoseOfTheTensor) {
  TempDir dir;
  const at::Tensor w = at::arange(7 * 6).view({7, 2, 3}), odd = at::arange(9).to(at::kByte).view({9, 1});
  write_safetensors(dir / "x.safetensors",
                    {{"w", w}, {"odd", odd}, {"scalar", at::ones({})}, {"none", at::empty({4, 0})}});
  const SafetensorsFile file(dir / "x.safetensors");
  for (int64_t first = 0; first <= 7; ++first)
    for (int64_t count = 0; first + count <= 7; ++count) {
      EXPECT_TRUE(same_bytes(file.rows("w", first, count), w.narrow(0, first, count))) << first << " " << count;
      EXPECT_TRUE(same_bytes(file.rows("odd", first, count), odd.narrow(0, first, count))) << first << " " << count;
    }
  EXPECT_EQ(file.rows("none", 1, 2).sizes(), (std::vector<int64_t>{2, 0}));
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  for (const auto& [first, count] :
       std::vector<std::pair<int64_t, int64_t>>{{7, 1}, {0, 8}, {kMost, 1}, {1, kMost}, {kMost, kMost}})
    EXPECT_THROW(file.rows("w", first, count), UserError) << first << " " << count;
  EXPECT_THROW(file.rows("scalar", 0, 1), UserError);
  EXPECT_THROW(file.rows("absent", 0, 1), UserError);
  EXPECT_THROW(file.rows("w", -1, 2), InternalError);
}

TEST(Safetensors, ReferenceLibraryReadsOurs) {
  SATIN_NEEDS_PYTHON("safetensors");
  TempDir dir;
  write_safetensors(dir / "x.safetensors", every_dtype());
  const auto result = test::run_python("io/safetensors_reference.py check " + (dir / "x.safetensors").string());
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

TEST(Safetensors, ReadsTheReferenceLibrarys) {
  SATIN_NEEDS_PYTHON("safetensors");
  TempDir dir;
  const auto result = test::run_python("io/safetensors_reference.py write " + (dir / "x.safetensors").string());
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const SafetensorsFile file(dir / "x.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.tensors().size(), every_dtype().size());
  for (const auto& [name, value] : every_dtype()) EXPECT_TRUE(same_bytes(file.tensor(name), value)) << name;
}

TEST(Safetensors, MissingTensorNamesTheNearest) {
  TempDir dir;
  write_safetensors(dir / "x.safetensors", {{"model.norm.weight", at::ones({2})}});
  try {
    SafetensorsFile(dir / "x.safetensors").tensor("model.norm.wieght");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean"), std::string::npos) << error.what();
  }
}

TEST(Safetensors, FullDiskLeavesTheOldFile) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "needs /dev/full";
  TempDir dir;
  write_safetensors(dir / "x.safetensors", {{"a", at::ones({2})}});
  const std::string before = test::read_file(dir / "x.safetensors");
  std::filesystem::create_symlink("/dev/full", dir / "x.safetensors.partial");
  EXPECT_THROW(write_safetensors(dir / "x.safetensors", {{"a", at::zeros({2})}}), UserError);
  EXPECT_EQ(test::read_file(dir / "x.safetensors"), before);
  EXPECT_FALSE(std::filesystem::is_symlink(dir / "x.safetensors.partial"));
}

TEST(Safetensors, ShortWriteLeavesTheOldFile) {  // the disk fills in the middle of a tensor
  TempDir dir;
  write_safetensors(dir / "x.safetensors", {{"a", at::ones({2})}});
  const std::string before = test::read_file(dir / "x.safetensors");
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{100'000, old.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_THROW(write_safetensors(dir / "x.safetensors", {{"a", at::zeros({100'000})}}), UserError);
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(test::read_file(dir / "x.safetensors"), before);
  EXPECT_FALSE(std::filesystem::exists(dir / "x.safetensors.partial"));
}

TEST(Safetensors, UnwritablePlaceIsAUserError) {
  EXPECT_THROW(write_safetensors("/nonexistent/x.safetensors", {{"a", at::ones({2})}}), UserError);
}

}  // namespace satin::io
