// What a crash, a full disk or a read-only directory leaves behind: the last good checkpoint, always.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <iostream>
#include <random>

#include "core/error.h"
#include "io/checkpoint_fixture.h"
#include "io/safetensors.h"

namespace satin::io {
using test::TempDir;
namespace fs = std::filesystem;

namespace {

constexpr int kCannot = 77;

/// Runs `body` in a forked child and returns its exit status: the value of body, or 1 after an exception.
int in_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    int code = 1;
    try {
      code = body();
    } catch (const std::exception& error) {
      std::cerr << error.what() << std::endl;
    }
    _exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Saving `contents` fails with a UserError that contains `reason`, and step 1 stays the latest, whole.
int fails_cleanly(const fs::path& run, const CheckpointContents& contents, const std::string& reason) {
  try {
    save_checkpoint(run, contents, 1);
    std::cerr << "saved in spite of " << reason << std::endl;
    return 2;
  } catch (const UserError& error) {
    if (std::string(error.what()).find(reason) == std::string::npos) {
      std::cerr << error.what() << std::endl;
      return 3;
    }
  }
  if (verify_checkpoint(latest_checkpoint(run).value()).step != 1) return 4;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints"))
    if (entry.path().filename() != "latest" && entry.path().filename() != "step-1") return 5;
  return 0;
}

void check_content(const fs::path& checkpoint) {
  const Manifest manifest = verify_checkpoint(checkpoint);
  const at::Tensor w = TensorDirectory(checkpoint).tensor("w");
  EXPECT_EQ(w[0].item<float>(), static_cast<float>(manifest.step));
  EXPECT_EQ(checkpoint.filename(), "step-" + std::to_string(manifest.step));
}

}  // namespace

TEST(CheckpointFailure, FullDisk) {
  TempDir dir;
  const int status = in_child([&] {
    const auto small = checkpoint_contents(dir.path(), 1), large = checkpoint_contents(dir.path(), 2, 1'000'000);
    fs::create_directory(dir / "disk");
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", (dir / "disk").c_str(), "tmpfs", 0, "size=1m") != 0)
      return kCannot;
    save_checkpoint(dir / "disk/run", small, 1);
    return fails_cleanly(dir / "disk/run", large, "No space left on device");
  });
  if (status == kCannot) GTEST_SKIP() << "needs the right to mount a tmpfs (root)";
  EXPECT_EQ(status, 0);
}

TEST(CheckpointFailure, FileTooLarge) {
  TempDir dir;
  EXPECT_EQ(in_child([&] {
              save_checkpoint(dir / "run", checkpoint_contents(dir.path(), 1), 1);
              const auto large = checkpoint_contents(dir.path(), 2, 1'000'000);
              const rlimit limit{100'000, 100'000};
              setrlimit(RLIMIT_FSIZE, &limit);
              std::signal(SIGXFSZ, SIG_IGN);
              return fails_cleanly(dir / "run", large, "File too large");
            }),
            0);
}

TEST(CheckpointFailure, ReadOnlyDirectory) {
  TempDir dir;
  EXPECT_EQ(in_child([&] {
              save_checkpoint(dir / "run", checkpoint_contents(dir.path(), 1), 1);
              const auto next = checkpoint_contents(dir.path(), 2);
              fs::permissions(dir.path(), fs::perms(0755));
              fs::permissions(dir / "run/checkpoints", fs::perms(0555));
              if (geteuid() == 0 && seteuid(65534) != 0) return kCannot;
              const int status = fails_cleanly(dir / "run", next, "Permission denied");
              if (getuid() == 0 && seteuid(0) != 0) return kCannot;
              fs::permissions(dir / "run/checkpoints", fs::perms(0755));
              return status;
            }),
            0);
}

TEST(CheckpointFailure, AModelDirectoryWithoutConfig) {
  TempDir dir;
  save_checkpoint(dir / "run", checkpoint_contents(dir.path(), 1), 1);
  auto contents = checkpoint_contents(dir.path(), 2);
  fs::remove(dir / "teacher/config.json");
  EXPECT_EQ(fails_cleanly(dir / "run", contents, "config.json"), 0);
}

TEST(CheckpointFailure, KilledAtAnyMoment) {
  TempDir dir;
  const fs::path run = dir / "run";
  std::mt19937 random(7);
  int num_saved = 0;
  for (int round = 0; round < 30; ++round) {
    const auto before = latest_checkpoint(run);
    // Every other round saves its first step over one that is there.
    const int64_t step_before = before ? read_manifest(*before).step : 0;
    const int64_t first = before ? step_before + round % 2 : 1;
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      try {
        for (int64_t step = first;; ++step) {
          save_checkpoint(run, checkpoint_contents(dir.path(), step, 20'000), 2);
          if (write(pipe_ends[1], &step, sizeof step) != sizeof step) _exit(1);
        }
      } catch (const std::exception& error) {
        std::cerr << error.what() << std::endl;
      }
      _exit(1);
    }
    close(pipe_ends[1]);
    usleep(std::uniform_int_distribution<useconds_t>(0, 300'000)(random));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer stopped by itself";
    int64_t step = 0, reported = step_before;
    while (read(pipe_ends[0], &step, sizeof step) == sizeof step) reported = step, ++num_saved;
    close(pipe_ends[0]);

    const auto latest = latest_checkpoint(run);
    if (!latest) {
      EXPECT_EQ(reported, 0) << "a finished checkpoint was lost";
      continue;
    }
    EXPECT_GE(read_manifest(*latest).step, reported);
    for (const auto& entry : fs::directory_iterator(run / "checkpoints"))
      if (entry.path().filename().string().starts_with("step-")) check_content(entry.path());
  }
  EXPECT_GT(num_saved, 0);
  save_checkpoint(run, checkpoint_contents(dir.path(), 1'000'000), 2);
  EXPECT_EQ(std::distance(fs::directory_iterator(run / "checkpoints"), {}), 3) << "latest and two checkpoints";
}

}  // namespace satin::io
