#include "report/tensorboard.h"

#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "core/error.h"
#include "support/test_support.h"

namespace satin::report {
namespace {
using test::TempDir;
using Row = std::tuple<std::string, int64_t, float>;

const char* const kFile = "events.out.tfevents.0.satin";

std::set<Row> read_events(const std::string& reader, const std::filesystem::path& path) {
  const auto result = test::run_python("report/read_events.py " + reader + " " + path.string());
  EXPECT_EQ(result.exit_code, 0) << result.output;
  std::set<Row> rows;
  // The last line: TensorBoard may warn about missing packages before it.
  const size_t begin = result.output.rfind("[[");
  if (begin == std::string::npos) return rows;
  for (const auto& row : nlohmann::json::parse(result.output.substr(begin))) rows.insert(row.get<Row>());
  return rows;
}

std::set<Row> write_events(TensorBoardWriter& writer, int64_t first, int64_t last) {
  std::set<Row> rows;
  for (int64_t step = first; step <= last; ++step)
    for (const char* tag : {"loss", "eval/books-valid/perplexity"}) {
      const float value = static_cast<float>(step) * 0.37f - 1000;
      writer.add_scalar(tag, value, step * 50);  // steps of one and two varint bytes
      rows.emplace(tag, step * 50, value);
    }
  writer.flush();
  return rows;
}

TEST(TensorBoard, ReadByAnIndependentParser) {
  SATIN_NEEDS_PYTHON("json");
  TempDir dir;
  TensorBoardWriter writer(dir.path());
  const auto rows = write_events(writer, 0, 7);
  EXPECT_EQ(read_events("plain", dir / kFile), rows);
}

TEST(TensorBoard, ReadByTensorBoard) {
  SATIN_NEEDS_PYTHON("tensorboard");
  TempDir dir;
  TensorBoardWriter writer(dir.path());
  const auto rows = write_events(writer, 1, 7);
  EXPECT_EQ(read_events("tensorboard", dir / kFile), rows);
}

TEST(TensorBoard, ResumeLeavesNoDuplicates) {
  SATIN_NEEDS_PYTHON("json");
  TempDir dir;
  {
    TensorBoardWriter writer(dir.path());
    write_events(writer, 1, 9);
  }
  const std::string whole = test::read_file(dir / kFile);
  test::write_file(dir / kFile, whole.substr(0, whole.size() - 5));  // killed in the middle of a write
  std::set<Row> rows;
  {
    TensorBoardWriter writer(dir.path(), 8 * 50);
    rows = write_events(writer, 9, 12);
  }
  rows.merge(std::set<Row>(read_events("plain", dir / kFile)));
  EXPECT_EQ(rows.size(), 2u * 12);
  EXPECT_EQ(read_events("plain", dir / kFile), rows);
  EXPECT_NE(test::read_file(dir / kFile), whole);

  TensorBoardWriter anew(dir.path());
  EXPECT_TRUE(read_events("plain", dir / kFile).empty());
}

TEST(TensorBoard, DamagedFileIsCutAtTheDamage) {
  SATIN_NEEDS_PYTHON("json");
  TempDir dir;
  {
    TensorBoardWriter writer(dir.path());
    write_events(writer, 1, 4);
  }
  std::string bytes = test::read_file(dir / kFile);
  bytes[bytes.size() / 2] ^= 0x10;
  test::write_file(dir / kFile, bytes);
  TensorBoardWriter writer(dir.path(), 1000);
  writer.add_scalar("loss", 1, 1000);
  writer.flush();
  const auto rows = read_events("plain", dir / kFile);
  EXPECT_TRUE(rows.contains({"loss", 1000, 1.f}));
  EXPECT_LT(rows.size(), 8u);
  test::write_file(dir / kFile, "not an event file");
  TensorBoardWriter fresh(dir.path(), 1000);
  EXPECT_TRUE(read_events("plain", dir / kFile).empty());
}

TEST(TensorBoard, NeedsAPlace) {
  TempDir dir;
  EXPECT_THROW(TensorBoardWriter(dir / "absent"), UserError);
}

}  // namespace
}  // namespace satin::report
