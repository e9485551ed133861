#include "io/checkpoint_writer.h"

#include <ATen/Functions.h>

#include "core/error.h"
#include "io/checkpoint_fixture.h"
#include "io/checkpoint_part.h"
#include "io/output_file.h"
#include "io/safetensors.h"

namespace satin::io {
namespace fs = std::filesystem;
using test::TempDir;

TEST(AsyncCheckpointWriter, SavesTheMomentOfTheCall) {
  TempDir dir;
  AsyncCheckpointWriter writer(dir / "run", 10);
  for (int64_t step = 1; step <= 5; ++step) {
    const auto contents = checkpoint_contents(dir.path(), step, 200'000);
    writer.save(contents);
    contents.model[0].tensor.zero_();
    contents.optimizer[0].tensor.zero_();
  }
  writer.wait();
  for (int64_t step = 1; step <= 5; ++step) {
    const fs::path saved = dir / cat("run/checkpoints/step-", step);
    EXPECT_EQ(verify_checkpoint(saved).step, step);
    EXPECT_TRUE(TensorDirectory(saved).tensor("w").eq(step).all().item<bool>());
    EXPECT_TRUE(SafetensorsFile(saved / "optimizer.safetensors").tensor("w.m").eq(step).all().item<bool>());
  }
  EXPECT_EQ(latest_checkpoint(dir / "run"), dir / "run/checkpoints/step-5");
}

TEST(AsyncCheckpointWriter, AnErrorIsThrownByTheNextCallOnce) {
  TempDir dir;
  AsyncCheckpointWriter writer(dir / "run", 10);
  auto broken = checkpoint_contents(dir.path(), 1);
  broken.model_files = dir / "absent";
  writer.save(broken);
  EXPECT_THROW(writer.save(checkpoint_contents(dir.path(), 2)), UserError);
  writer.wait();
  EXPECT_EQ(latest_checkpoint(dir / "run"), std::nullopt);
  writer.save(checkpoint_contents(dir.path(), 3));
  writer.wait();
  EXPECT_EQ(latest_checkpoint(dir / "run"), dir / "run/checkpoints/step-3");
  writer.save(broken);  // the destructor says so in the log
}

TEST(AsyncCheckpointWriter, TheDestructorWaits) {
  TempDir dir;
  {
    AsyncCheckpointWriter writer(dir / "run", 10);
    writer.save(checkpoint_contents(dir.path(), 1, 1'000'000));
  }
  EXPECT_EQ(verify_checkpoint(dir / "run/checkpoints/step-1").step, 1);
}

TEST(CheckpointPart, OffsetsBeyondFourGibibytes) {  // in a sparse file, of memory that nothing touches
  TempDir dir;
  constexpr int64_t kRows = 1'200'000, kColumns = 1000;
  const at::Tensor last = at::arange(12).view({3, 4}).to(at::kFloat);
  CheckpointContents contents = checkpoint_contents(dir.path(), 1);
  contents.model = {{"huge", at::empty({kRows, kColumns}, at::kFloat)}, {"last", last}};
  const auto alone = dist::Communicator::alone();
  const TensorFilePart part = part_of(contents, *alone).files[0];
  ASSERT_EQ(part.runs.size(), 2u);
  EXPECT_EQ(part.runs[1].begin, static_cast<int64_t>(part.layout.header().size()) + kRows * kColumns * 4);
  EXPECT_EQ(part.layout.size_bytes(), part.runs[1].begin + 48);

  OutputFile file(dir / "x.safetensors", OutputFile::Mode::kCreate, "x");
  const auto write = [&](int64_t begin, const at::Tensor& values) {
    file.write_at(begin, {static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
  };
  file.write_at(0, std::as_bytes(std::span(part.layout.header())));
  const at::Tensor row = at::arange(kColumns).to(at::kFloat);
  write(part.runs[0].begin + (kRows - 2) * kColumns * 4, row);
  write(part.runs[1].begin, last);
  const SafetensorsFile read(dir / "x.safetensors");
  EXPECT_TRUE(read.tensor("last").equal(last));
  EXPECT_TRUE(read.rows("huge", kRows - 2, 1)[0].equal(row));
  EXPECT_TRUE(read.rows("huge", kRows - 1, 1).eq(0).all().item<bool>());
}

}  // namespace satin::io
