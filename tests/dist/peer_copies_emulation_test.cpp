// The copies' pieces, slices and flags without a GPU: ranks are threads, and CUDA is emulated_cuda.h.
#define PeerCopies EmulatedPeerCopies  // the library has one too
#include <ATen/Parallel.h>

#include <barrier>
#include <thread>

#include "dist/peer_copies.cpp"
#include "dist/peer_copies_cases.h"
#include "support/test_support.h"

namespace satin::dist {
namespace {

/// Texts between threads; the copies need no more.
class Threads : public Communicator {
 public:
  struct Board {
    explicit Board(int64_t size) : texts(static_cast<size_t>(size)), all(size) {}
    std::vector<std::string> texts;
    std::barrier<> all;
  };
  Threads(Board& board, int64_t rank) : board_(board), rank_(rank) {}
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return static_cast<int64_t>(board_.texts.size()); }
  std::vector<std::string> gather(const std::string& text) override {
    board_.texts[static_cast<size_t>(rank_)] = text;
    board_.all.arrive_and_wait();
    std::vector<std::string> texts = board_.texts;
    board_.all.arrive_and_wait();
    return texts;
  }
  void barrier() override { board_.all.arrive_and_wait(); }
  Pending all_reduce(const std::vector<at::Tensor>&) override { return none(); }
  Pending all_gather(const at::Tensor&, const at::Tensor&) override { return none(); }
  Pending reduce_scatter(const at::Tensor&, const at::Tensor&) override { return none(); }
  Pending broadcast(const at::Tensor&, int64_t) override { return none(); }
  std::vector<double> sum(const std::vector<double>&) override { throw InternalError("not of threads"); }
  std::shared_ptr<Communicator> duplicate() override { throw InternalError("not of threads"); }
  std::shared_ptr<Communicator> subgroup(const std::vector<int64_t>&) override {
    throw InternalError("not of threads");
  }

 private:
  static Pending none() { throw InternalError("not of threads"); }

  Board& board_;
  int64_t rank_;
};

class PeerCopiesEmulation : public testing::TestWithParam<int> {};

TEST_P(PeerCopiesEmulation, SumAndGather) {
  Threads::Board board(GetParam());
  std::vector<std::string> problems(static_cast<size_t>(GetParam()));
  std::vector<std::thread> ranks;
  for (int64_t rank = 0; rank < GetParam(); ++rank)
    ranks.emplace_back([&, rank] {
      at::set_num_threads(1);
      Threads group(board, rank);
      try {
        const auto copies = EmulatedPeerCopies::make(group, c10::kCPU, /*piece_bytes=*/1 << 16);
        if (!copies) throw InternalError("no copies");
        check_peer_copies(*copies, group, c10::kCPU, 93757);
        copies->close(group);
      } catch (const std::exception& error) {
        problems[static_cast<size_t>(rank)] = error.what();
        board.all.arrive_and_drop();
      }
    });
  for (std::thread& rank : ranks) rank.join();
  for (const std::string& problem : problems) EXPECT_EQ(problem, "");
}
INSTANTIATE_TEST_SUITE_P(Sizes, PeerCopiesEmulation, testing::Values(2, 3, 4));

}  // namespace
}  // namespace satin::dist
