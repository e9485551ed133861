// CPU processes over Gloo. Its all-reduce adds in an order that depends on where in a tensor a number stands, and its
// reduce-scatter on the version; here every sum is over the ranks in their order, in fp32 or fp64, rounded once. So the
// bits are the same on all ranks, and the same whether gradients are all-reduced or reduce-scattered.
#define USE_C10D_GLOO  // what the header below asks for
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <condition_variable>
#include <deque>
#include <future>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "core/clock.h"
#include "core/error.h"
#include "dist/backends.h"
#include "dist/group.h"
#include "dist/work.h"

namespace satin::dist {
namespace {

struct GlooMeter : Meter {
  std::atomic<int64_t> left{0};
  std::atomic<double> waited{0};
  bool outstanding() override { return left.load() < entered.load(); }
  double waited_s() override { return waited.load(); }
};

struct GlooWork : Pending::Work {
  GlooWork(std::future<void> result, std::shared_ptr<GlooMeter> meter)
      : done(std::move(result)), meter(std::move(meter)) {}
  void wait() override {
    const double start = now_s();
    done.get();
    meter->waited.fetch_add(now_s() - start);
  }
  std::future<void> done;
  std::shared_ptr<GlooMeter> meter;
};

/// Only bytes travel, so that every dtype does.
at::Tensor bytes(const at::Tensor& tensor) { return tensor.view(-1).view(at::kByte); }

/// received [size, n]: its sum over the ranks in their order, [n].
at::Tensor sum_over_ranks(const at::Tensor& received) {
  const bool is_short = received.scalar_type() == at::kBFloat16 || received.scalar_type() == at::kHalf;
  at::Tensor sum =
      received[0].to(is_short ? at::kFloat : received.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  for (int64_t i = 1; i < received.size(0); ++i) sum.add_(received[i]);
  return sum.to(received.scalar_type());
}

class GlooGroup : public Group {
 public:
  GlooGroup(c10::intrusive_ptr<c10d::Store> store, int64_t rank, int64_t size, std::string address, double timeout_s,
            std::shared_ptr<Meters> meters)
      : Group(rank, size, at::kCPU, std::move(meters)),
        store_(std::move(store)),
        address_(std::move(address)),
        timeout_s_(timeout_s),
        meter_(std::make_shared<GlooMeter>()) {
    auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(std::llround(timeout_s * 1000)));
    const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
    try {
      options->devices = {interface && *interface ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                                                  : c10d::ProcessGroupGloo::createDeviceForHostname(address_)};
    } catch (const std::exception& error) {
      throw UserError(cat("network: expected an interface that other ranks reach, found ",
                          interface && *interface ? cat("GLOO_SOCKET_IFNAME=", interface) : cat("address ", address_),
                          ", which cannot be used; set GLOO_SOCKET_IFNAME (see `ip address`)\n", error.what()));
    }
    options->threads = 1;
    translate_errors([&] {
      group_ =
          c10::make_intrusive<c10d::ProcessGroupGloo>(store_, static_cast<int>(rank), static_cast<int>(size), options);
    });
    group_->setTimeout(kNoLimit);
    meters_->add(meter_);
    worker_ = std::thread([this] { serve(); });
  }

  ~GlooGroup() override {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_one();
    worker_.join();
  }

  Pending all_reduce(const std::vector<at::Tensor>& tensors) override {
    return enqueue([this, tensors] {
      int64_t n = 0;
      for (const at::Tensor& tensor : tensors) n += tensor.numel();
      if (n == 0) return;
      const int64_t share = (n + size_ - 1) / size_;
      const bool in_place = tensors.size() == 1 && share * size_ == n;
      if (in_place) return exchange_and_gather(tensors[0].view(-1));
      const at::Tensor whole = at::zeros({share * size_}, tensors[0].options().requires_grad(false));
      const auto each = [&](const auto& copy) {
        int64_t at = 0;
        for (const at::Tensor& tensor : tensors) {
          copy(tensor.view(-1), whole.narrow(0, at, tensor.numel()));
          at += tensor.numel();
        }
      };
      each([](const at::Tensor& tensor, const at::Tensor& slice) { slice.copy_(tensor); });
      exchange_and_gather(whole);
      each([](const at::Tensor& tensor, const at::Tensor& slice) { tensor.copy_(slice); });
    });
  }

  Pending all_gather(const at::Tensor& whole, const at::Tensor& part) override {
    SATIN_CHECK_EQ(whole.numel(), part.numel() * size_, "all_gather");
    return enqueue([this, whole, part] {
      if (part.numel() > 0) gather_parts(whole, part);
    });
  }

  Pending reduce_scatter(const at::Tensor& part, const at::Tensor& whole) override {
    SATIN_CHECK_EQ(whole.numel(), part.numel() * size_, "reduce_scatter");
    return enqueue([this, part, whole] {
      if (part.numel() > 0) part.view(-1).copy_(sum_of_my_share(whole));
    });
  }

  Pending broadcast(const at::Tensor& tensor, int64_t root) override {
    return enqueue([this, tensor, root] {
      if (tensor.numel() == 0) return;
      std::vector<at::Tensor> tensors{bytes(tensor.detach())};
      c10d::BroadcastOptions options;
      options.rootRank = root;
      group_->broadcast(tensors, options)->wait();
    });
  }

  double waited_s() const override { return meter_->waited_s(); }

  std::shared_ptr<Communicator> part(const std::string& name, int64_t rank,
                                     const std::vector<int64_t>& ranks) override {
    return std::make_shared<GlooGroup>(c10::make_intrusive<c10d::PrefixStore>(name, store_), rank,
                                       static_cast<int64_t>(ranks.size()), address_, timeout_s_, meters_);
  }

  std::shared_ptr<Communicator> duplicate() override {
    return std::make_shared<GlooGroup>(
        c10::make_intrusive<c10d::PrefixStore>(cat("duplicate", num_duplicates_++), store_), rank_, size_, address_,
        timeout_s_, meters_);
  }

 private:
  template <class Function>
  void translate_errors(const Function& function) {
    try {
      function();
    } catch (const c10::Error& error) {
      throw PeerError(cat("rank ", rank_, " lost another rank: ", error.what_without_backtrace()));
    } catch (const std::exception& error) {
      throw PeerError(cat("rank ", rank_, " lost another rank: ", error.what()));
    }
  }

  /// Collectives run one after the other on this group's thread, so that those of several messages keep their order.
  Pending enqueue(std::function<void()> collective) {
    auto task = std::packaged_task<void()>([this, collective = std::move(collective)] {
      translate_errors(collective);
      ++meter_->left;
    });
    auto work = std::make_shared<GlooWork>(task.get_future(), meter_);
    ++meter_->entered;
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_one();
    return Pending(std::move(work));
  }

  void serve() {
    const at::NoGradGuard no_grad;
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return closing_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }

  /// whole [size * share]: the sum of every rank's [rank * share, (rank + 1) * share), of the same dtype.
  at::Tensor sum_of_my_share(const at::Tensor& whole) {
    at::Tensor received = at::empty_like(whole.view(-1));
    at::Tensor to = bytes(received), from = bytes(whole.detach());
    std::vector<int64_t> even;
    group_->alltoall_base(to, from, even, even)->wait();
    return sum_over_ranks(received.view({size_, -1}));
  }

  void gather_parts(const at::Tensor& whole, const at::Tensor& part) {
    at::Tensor to = bytes(whole.detach()), from = bytes(part.detach());
    group_->_allgather_base(to, from)->wait();
  }

  void exchange_and_gather(const at::Tensor& whole) { gather_parts(whole, sum_of_my_share(whole)); }

  const c10::intrusive_ptr<c10d::Store> store_;
  const std::string address_;
  const double timeout_s_;
  const std::shared_ptr<GlooMeter> meter_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
  int64_t num_duplicates_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::packaged_task<void()>> tasks_;
  bool closing_ = false;
  std::thread worker_;
};

}  // namespace

bool has_gloo() { return true; }

std::shared_ptr<Communicator> make_gloo(c10::intrusive_ptr<c10d::Store> store, int64_t rank, int64_t size,
                                        const std::string& address, double timeout_s) {
  return std::make_shared<GlooGroup>(std::move(store), rank, size, address, timeout_s, nullptr);
}

}  // namespace satin::dist
