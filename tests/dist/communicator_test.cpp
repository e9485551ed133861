// Ranks as real processes over Gloo, against sums computed here.
#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>

#include <thread>

#include "core/error.h"
#include "dist/backends.h"
#include "dist/rank_values.h"
#include "dist/ranks.h"
#include "support/test_support.h"

namespace satin::dist {
namespace {

using test::bf16_sum_of_ranks;
using test::check;
using test::rank_values;
using test::sum_of_ranks;

int all_operations(const Launch& launch) {
  auto group = join(launch, at::kCPU, 60);
  const int64_t rank = group->rank(), size = group->size();
  check(rank == launch.rank && size == launch.size, "rank and size");
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const int64_t n : {0, 1, 2, 5, 1000, 65537}) {
      const std::string name = cat(at::toString(dtype), " ", n);
      at::Tensor tensor = rank_values(rank, n, dtype);
      group->all_reduce(tensor).wait();
      check(tensor.equal(sum_of_ranks(size, n, dtype)), "all_reduce " + name);

      at::Tensor in_bf16 = rank_values(rank, n, dtype);
      group->all_reduce_in(at::kBFloat16, {in_bf16}).wait();
      check(in_bf16.equal(bf16_sum_of_ranks(size, n, dtype)), "all_reduce_in " + name);

      at::Tensor whole = at::empty({size * n}, dtype);
      group->all_gather(whole, rank_values(rank, n, dtype)).wait();
      for (int64_t i = 0; i < size; ++i)
        check(whole.narrow(0, i * n, n).equal(rank_values(i, n, dtype)), "all_gather " + name);

      at::Tensor part = at::empty({n}, dtype);
      group->reduce_scatter(part, rank_values(rank, size * n, dtype)).wait();
      check(part.equal(sum_of_ranks(size, size * n, dtype).narrow(0, rank * n, n)), "reduce_scatter " + name);

      for (int64_t root = 0; root < size; ++root) {
        tensor = rank_values(rank, n, dtype);
        group->broadcast(tensor, root).wait();
        check(tensor.equal(rank_values(root, n, dtype)), "broadcast " + name);
      }
    }
  }
  // Matrices, integers, a tensor that autograd knows.
  at::Tensor counts = at::full({3, 2}, rank + 1, at::kLong);
  group->all_reduce(counts).wait();
  check(counts.eq(size * (size + 1) / 2).all().item<bool>(), "integers");
  at::Tensor leaf = at::full({2, 3}, static_cast<double>(rank), at::kFloat).set_requires_grad(true);
  group->broadcast(leaf, size - 1).wait();
  check(leaf.eq(size - 1).all().item<bool>(), "broadcast into a leaf");

  // Many under way, waited for in another order.
  std::vector<at::Tensor> tensors;
  std::vector<Pending> pending;
  for (int i = 0; i < 20; ++i) {
    tensors.push_back(rank_values(rank, 100 + i, at::kFloat));
    pending.push_back(group->all_reduce(tensors.back()));
  }
  for (int i = 19; i >= 0; --i) {
    pending[static_cast<size_t>(i)].wait();
    check(tensors[static_cast<size_t>(i)].equal(sum_of_ranks(size, 100 + i, at::kFloat)), "many");
  }
  return 0;
}
const test::RegisterJob kAllOperations("all_operations", all_operations);

int host_values(const Launch& launch) {
  auto group = join(launch, at::kCPU, 60);
  const double rank = static_cast<double>(group->rank()), size = static_cast<double>(group->size());
  const auto sums = group->sum({rank, 1, 0.1});
  double tenths = 0;
  for (int i = 0; i < group->size(); ++i) tenths += 0.1;
  check(sums == std::vector<double>({size * (size - 1) / 2, size, tenths}), "sum");
  const auto text_of = [](int64_t r) { return std::string(static_cast<size_t>(r * 1000), 'a') + std::string(1, '\0'); };
  const auto texts = group->gather(text_of(group->rank()));
  check(texts.size() == static_cast<size_t>(group->size()), "gather: number");
  for (int64_t i = 0; i < group->size(); ++i) check(texts[static_cast<size_t>(i)] == text_of(i), "gather");
  check(group->gather("") == std::vector<std::string>(texts.size()), "gather of nothing");
  group->barrier();
  return 0;
}
const test::RegisterJob kHostValues("host_values", host_values);

/// Two threads, each with its own group of the same ranks, in no particular order.
int two_threads(const Launch& launch) {
  auto first = join(launch, at::kCPU, 60);
  auto second = first->duplicate(), third = second->duplicate();
  const auto work = [](Communicator& group) {
    for (int i = 1; i <= 200; ++i) {
      at::Tensor tensor = rank_values(group.rank(), i, at::kFloat);
      group.all_reduce(tensor).wait();
      check(tensor.equal(sum_of_ranks(group.size(), i, at::kFloat)), "sum beside another thread");
    }
  };
  std::thread other([&] { work(*second); });
  work(*first);
  other.join();
  third->barrier();
  const auto progress = first->progress();
  check(progress.size() == 3 && progress[0].entered == 200 && progress[1].entered == 200 && progress[2].entered == 1,
        "progress");
  for (const auto& p : progress) check(!p.outstanding, "outstanding");
  return 0;
}
const test::RegisterJob kTwoThreads("two_threads", two_threads);

/// The last rank leaves without a word; the others' collective throws PeerError.
int one_leaves(const Launch& launch) {
  auto group = join(launch, at::kCPU, 60);
  group->barrier();
  if (group->rank() == group->size() - 1) _exit(0);
  try {
    for (int i = 0; i < 1000; ++i) group->all_reduce(at::ones({10})).wait();
  } catch (const PeerError&) {
    _exit(0);
  }
  return 1;
}
const test::RegisterJob kOneLeaves("one_leaves", one_leaves);

int missing_ranks(const Launch& launch) {
  try {
    join(launch, at::kCPU, 1);
  } catch (const PeerError& error) {
    const std::string text = error.what();
    check(text.find("2 of 4 ranks did not come within 1 s: 2, 3") != std::string::npos, text);
    return 0;
  }
  return 1;
}
const test::RegisterJob kMissingRanks("missing_ranks", missing_ranks);

/// Small whole numbers: their sums are exact in every order and dtype.
at::Tensor whole_numbers(int64_t rank, int64_t n, at::ScalarType dtype) {
  return at::arange(n, at::kLong).add(rank * 7).remainder(5).sub(2).to(dtype).to(at::kCUDA);
}

/// Rank 0 comes late; who waits for it knows for how long, and collectives that have ended in time cost nothing.
void check_waited(Communicator& group, const at::Device& device) {
  group.barrier();
  const auto synchronised = [&] { return at::zeros({1}, device).item<float>(); };
  synchronised();
  const double before = group.waited_s();
  if (group.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const at::Tensor tensor = at::ones({4}, device);
  group.all_reduce(tensor).wait();
  synchronised();
  const double waited = group.waited_s() - before;
  check(group.rank() == 0 ? waited < 0.15 : waited > 0.2 && waited < 1, cat("waited ", waited, " s"));

  Pending early = group.all_reduce(tensor);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  synchronised();
  const double start = group.waited_s();
  early.wait();
  synchronised();
  check(group.waited_s() - start < 0.1, cat("waited for what was done: ", group.waited_s() - start, " s"));
}

int nccl_operations(const Launch& launch) {
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(launch.local_rank));
  at::accelerator::setDeviceIndex(device.index());
  auto first = join(launch, device, 120);
  for (const auto& group : {first, first->duplicate()}) {
    const int64_t rank = group->rank(), size = group->size();
    for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      for (const int64_t n : {0, 1, 5, 1000, 65537, 2000003}) {
        const std::string name = cat("NCCL ", at::toString(dtype), " ", n);
        const auto sum = [&](int64_t numbers) {
          at::Tensor total = whole_numbers(0, numbers, dtype);
          for (int64_t i = 1; i < size; ++i) total = total + whole_numbers(i, numbers, dtype);
          return total;
        };
        at::Tensor reduced = whole_numbers(rank, n, dtype), sent = whole_numbers(rank, n, dtype);
        at::Tensor whole = at::empty({size * n}, sent.options()), part = at::empty({n}, sent.options());
        const std::vector<at::Tensor> in_bf16{whole_numbers(rank, n, dtype), whole_numbers(rank, 7, dtype)};
        Pending a = group->all_reduce(reduced), b = group->all_gather(whole, whole_numbers(rank, n, dtype)),
                c = group->reduce_scatter(part, whole_numbers(rank, size * n, dtype)),
                d = group->broadcast(sent, size - 1), e = group->all_reduce_in(at::kBFloat16, in_bf16);
        e.wait();
        d.wait();
        c.wait();
        b.wait();
        a.wait();
        check(reduced.equal(sum(n)), "all_reduce " + name);
        check(in_bf16[0].equal(sum(n)) && in_bf16[1].equal(sum(7)), "all_reduce_in " + name);
        for (int64_t i = 0; i < size; ++i)
          check(whole.narrow(0, i * n, n).equal(whole_numbers(i, n, dtype)), "all_gather " + name);
        check(part.equal(sum(size * n).narrow(0, rank * n, n)), "reduce_scatter " + name);
        check(sent.equal(whole_numbers(size - 1, n, dtype)), "broadcast " + name);
      }
    }
    check(group->sum({1.5}) == std::vector<double>{1.5 * static_cast<double>(size)}, "sum");
    check(group->gather(cat("rank ", rank)).back() == cat("rank ", size - 1), "gather");
    group->barrier();
  }
  for (const auto& progress : first->progress()) check(!progress.outstanding, "outstanding");
  check_waited(*first, device);
  return 0;
}
int waited(const Launch& launch) {
  check_waited(*join(launch, at::kCPU, 60), at::kCPU);
  return 0;
}
const test::RegisterJob kWaited("waited", waited);
const test::RegisterJob kNcclOperations("nccl_operations", nccl_operations);

TEST(Nccl, DoesEveryOperationInEveryDtype) {
  const int64_t gpus = at::hasCUDA() ? at::accelerator::deviceCount() : 0;
  if (gpus < 2) GTEST_SKIP() << "needs two GPUs";
  for (const char* copy_engines : {"1", "0"})
    test::run_job("nccl_operations", static_cast<int>(gpus), {cat("SATIN_COPY_ENGINES=", copy_engines)});
}

class Communicators : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (!has_gloo()) GTEST_SKIP() << "this build has no Gloo (libgloo-dev)";
  }
};

TEST_P(Communicators, DoEveryOperationInEveryDtype) { test::run_job("all_operations", GetParam()); }
TEST_P(Communicators, CarryHostValues) { test::run_job("host_values", GetParam()); }
TEST_P(Communicators, SayHowLongTheyWereWaitedFor) { test::run_job("waited", GetParam()); }
TEST_P(Communicators, WorkInTwoThreads) { test::run_job("two_threads", GetParam()); }
TEST_P(Communicators, ThrowWhenARankLeaves) { test::run_job("one_leaves", GetParam()); }
INSTANTIATE_TEST_SUITE_P(Sizes, Communicators, testing::Values(2, 3, 4));

TEST(Communicator, NamesRanksThatDoNotCome) {
  if (!has_gloo()) GTEST_SKIP() << "this build has no Gloo (libgloo-dev)";
  test::run_job("missing_ranks", 2, {"WORLD_SIZE=4", "LOCAL_WORLD_SIZE=4"});
}

TEST(Communicator, OfOneSendsNothing) {
  auto group = join(Launch{}, at::kCPU, 1);
  at::Tensor tensor = at::full({3}, 1.001), whole = at::empty({3});
  group->all_reduce(tensor).wait();
  group->all_reduce_in(at::kBFloat16, {tensor}).wait();
  group->all_gather(whole, tensor).wait();
  EXPECT_TRUE(whole.equal(at::full({3}, 1.001)));
  EXPECT_EQ(group->gather("x"), std::vector<std::string>{"x"});
}

}  // namespace
}  // namespace satin::dist
