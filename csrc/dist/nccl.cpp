// GPUs over NCCL, and through their copy engines where they are on one host: collectives run on streams of their own,
// NCCL's of high priority.
#define USE_C10D_NCCL  // what the header below asks for
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>

#include <cstdlib>
#include <deque>
#include <exception>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <utility>

#include "core/error.h"
#include "dist/backends.h"
#include "dist/group.h"
#include "dist/peer_copies.h"
#include "dist/row_lists.h"
#include "dist/work.h"

namespace satin::dist {
namespace {

/// The host runs ahead of the device; events around each wait say whether the device is still in the last, and how long
/// it stood in those that it has left.
class NcclMeter : public Meter {
 public:
  template <class Function>
  void wait(const Function& wait) {
    const std::lock_guard lock(mutex_);
    Wait next = spare_.empty() ? Wait{} : std::move(spare_.back());
    if (!spare_.empty()) spare_.pop_back();
    const auto stream = at::cuda::getCurrentCUDAStream();
    next.begin.record(stream);
    wait();
    next.end.record(stream);
    waits_.push_back(std::move(next));
  }
  bool outstanding() override {
    const std::lock_guard lock(mutex_);
    try {
      return !waits_.empty() && !waits_.back().end.query();
    } catch (const std::exception&) {  // the device failed; the main thread will say so
      return false;
    }
  }
  double waited_s() override {
    const std::lock_guard lock(mutex_);
    while (!waits_.empty() && waits_.front().end.query()) {
      waited_s_ += 1e-3 * waits_.front().begin.elapsed_time(waits_.front().end);
      spare_.push_back(std::move(waits_.front()));
      waits_.pop_front();
    }
    return waited_s_;
  }

 private:
  struct Wait {
    at::cuda::CUDAEvent begin{cudaEventDefault}, end{cudaEventDefault};
  };
  std::mutex mutex_;
  std::deque<Wait> waits_;  ///< in the stream's order
  std::vector<Wait> spare_;
  double waited_s_ = 0;
};

std::vector<at::Tensor> not_empty(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> some;
  for (const at::Tensor& tensor : tensors)
    if (tensor.numel() > 0) some.push_back(tensor.detach());
  return some;
}

template <class Function>
auto translate_errors(int64_t rank, const Function& function) {
  try {
    return function();
  } catch (const c10::DistError& error) {
    throw PeerError(cat("rank ", rank, " lost another rank: ", error.what_without_backtrace()));
  }
}

struct NcclWork : Pending::Work {
  NcclWork(int64_t rank, c10::intrusive_ptr<c10d::Work> work, std::shared_ptr<NcclMeter> meter)
      : rank(rank), work(std::move(work)), meter(std::move(meter)) {}
  void wait() override {
    translate_errors(rank, [&] { meter->wait([&] { work->wait(); }); });
  }
  int64_t rank;
  c10::intrusive_ptr<c10d::Work> work;
  std::shared_ptr<NcclMeter> meter;
};

struct CopyWork : Pending::Work {
  CopyWork(at::cuda::CUDAEvent done, std::vector<at::Tensor> tensors, std::shared_ptr<NcclMeter> meter)
      : done(std::move(done)), tensors(std::move(tensors)), meter(std::move(meter)) {}
  void wait() override {
    meter->wait([&] { done.block(at::cuda::getCurrentCUDAStream()); });
    tensors.clear();
  }
  at::cuda::CUDAEvent done;
  std::vector<at::Tensor> tensors;  ///< live until then
  std::shared_ptr<NcclMeter> meter;
};

class NcclGroup : public Group {
 public:
  NcclGroup(c10::intrusive_ptr<c10d::Store> store, int64_t rank, int64_t size, c10::Device device,
            std::shared_ptr<Communicator> host, std::shared_ptr<Meters> meters)
      : Group(rank, size, device, std::move(meters)),
        store_(std::move(store)),
        host_(std::move(host)),
        meter_(std::make_shared<NcclMeter>()) {
    auto options = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/true);
    options->timeout = kNoLimit;
    translate_errors(rank_, [&] {
      group_ = c10::make_intrusive<c10d::ProcessGroupNCCL>(store_, static_cast<int>(rank_), static_cast<int>(size_),
                                                           options);
      group_->eagerConnectSingleDevice(device_);  // so that what is wrong with the network is found here
    });
    meters_->add(meter_);
  }

  ~NcclGroup() override {
    try {
      // A shutdown needs the others; one that unwinds has lost them, or they are about to follow.
      const std::unique_ptr<PeerCopies> copies = std::move(copies_);  // what follows goes over NCCL
      if (std::uncaught_exceptions() > 0) {
        if (copies) copies->abandon();
        group_->abort();
      } else {
        if (copies) copies->close(*this);
        group_->shutdown();
      }
    } catch (const std::exception&) {  // a rank is lost, and this one is on its way out
    }
  }

  Pending all_reduce(const std::vector<at::Tensor>& tensors) override {
    std::vector<at::Tensor> some = not_empty(tensors);
    if (!some.empty() && copies()) return start_copies(copies_->all_reduce(some, some[0].scalar_type()), some);
    return start(!some.empty(),
                 [&] { return some.size() == 1 ? group_->allreduce(some) : group_->allreduce_coalesced(some); });
  }
  Pending all_reduce_in(at::ScalarType dtype, const std::vector<at::Tensor>& tensors) override {
    const std::vector<at::Tensor> some = not_empty(tensors);
    if (some.empty() || !copies()) return Group::all_reduce_in(dtype, tensors);
    return start_copies(copies_->all_reduce(some, dtype), some);
  }
  Pending all_gather(const at::Tensor& whole, const at::Tensor& part) override {
    SATIN_CHECK_EQ(whole.numel(), part.numel() * size_, "all_gather");
    at::Tensor to = whole.detach(), from = part.detach();
    if (part.numel() > 0 && copies())
      return start_copies(copies_->all_gather({{to, part.numel()}}, {from}), {to, from});
    return start(part.numel() > 0, [&] { return group_->_allgather_base(to, from); });
  }
  Pending reduce_scatter(const at::Tensor& part, const at::Tensor& whole) override {
    SATIN_CHECK_EQ(whole.numel(), part.numel() * size_, "reduce_scatter");
    at::Tensor to = part.detach(), from = whole.detach();
    if (part.numel() > 0 && copies())
      return start_copies(copies_->reduce_scatter(to, {{from, part.numel()}}), {to, from});
    return start(part.numel() > 0, [&] { return group_->_reduce_scatter_base(to, from); });
  }
  Pending all_gather(const std::vector<ToGather>& wholes, const std::vector<at::Tensor>& parts) override {
    if (wholes.empty() || !copies()) return Group::all_gather(wholes, parts);
    check(wholes, parts);
    std::vector<at::Tensor> used = parts;
    std::vector<Sliced> sliced;
    for (const ToGather& to : wholes) {
      used.push_back(to.whole.resize_(to.shape));
      sliced.push_back({to.whole, to.slice});
    }
    return start_copies(copies_->all_gather(sliced, parts), std::move(used));
  }
  Pending reduce_scatter(const at::Tensor& part, const std::vector<Sliced>& wholes) override {
    if (wholes.empty() || !copies()) return Group::reduce_scatter(part, wholes);
    check(part, wholes);
    std::vector<at::Tensor> used;
    for (const Sliced& of : wholes) used.push_back(of.whole);
    used = all_as(used, part.scalar_type());
    std::vector<Sliced> sliced = wholes;
    for (size_t i = 0; i < sliced.size(); ++i) sliced[i].whole = used[i];
    used.push_back(part);
    return start_copies(copies_->reduce_scatter(part, sliced), std::move(used));
  }
  Pending broadcast(const at::Tensor& tensor, int64_t root) override {
    std::vector<at::Tensor> tensors{tensor.detach()};
    if (tensor.numel() > 0 && copies()) return start_copies(copies_->broadcast(tensors[0], root), tensors);
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return start(tensor.numel() > 0, [&] { return group_->broadcast(tensors, options); });
  }

  std::vector<double> sum(const std::vector<double>& values) override {
    return host_ ? host_->sum(values) : Group::sum(values);
  }
  std::vector<std::string> gather(const std::string& text) override {
    return host_ ? host_->gather(text) : Group::gather(text);
  }
  void barrier() override { host_ ? host_->barrier() : Group::barrier(); }

  bool yields() override { return copies() != nullptr; }

  double waited_s() const override { return meter_->waited_s() + (host_ ? host_->waited_s() : 0); }

  std::shared_ptr<Communicator> part(const std::string& name, int64_t rank,
                                     const std::vector<int64_t>& ranks) override {
    return std::make_shared<NcclGroup>(c10::make_intrusive<c10d::PrefixStore>(name, store_), rank,
                                       static_cast<int64_t>(ranks.size()), device_,
                                       host_ ? host_->subgroup(ranks) : nullptr, meters_);
  }

  std::shared_ptr<Communicator> duplicate() override {
    return std::make_shared<NcclGroup>(
        c10::make_intrusive<c10d::PrefixStore>(cat("duplicate", num_duplicates_++), store_), rank_, size_, device_,
        host_ ? host_->duplicate() : nullptr, meters_);
  }

  std::vector<GroupProgress> progress() const override {
    auto progress = Group::progress();
    if (host_) {
      const auto host = host_->progress();
      progress.insert(progress.end(), host.begin(), host.end());
    }
    return progress;
  }

 private:
  template <class Function>
  Pending start(bool has_elements, const Function& collective) {
    ++meter_->entered;
    if (!has_elements) return {};
    return Pending(std::make_shared<NcclWork>(rank_, translate_errors(rank_, collective), meter_));
  }

  Pending start_copies(at::cuda::CUDAEvent done, std::vector<at::Tensor> tensors) {
    ++meter_->entered;
    return Pending(std::make_shared<CopyWork>(std::move(done), std::move(tensors), meter_));
  }
  /// Null where the ranks cannot reach each other's memory. Made with the first collective.
  PeerCopies* copies() {
    if (!std::exchange(asked_for_copies_, true)) copies_ = PeerCopies::make(*this, device_);  // itself over NCCL
    return copies_.get();
  }

  const c10::intrusive_ptr<c10d::Store> store_;
  const std::shared_ptr<Communicator> host_;  ///< null: host values go over the GPUs
  const std::shared_ptr<NcclMeter> meter_;
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> group_;
  int64_t num_duplicates_ = 0;
  bool asked_for_copies_ = false;
  std::unique_ptr<PeerCopies> copies_;
};

}  // namespace

std::shared_ptr<Communicator> make_nccl(c10::intrusive_ptr<c10d::Store> store, int64_t rank, int64_t size,
                                        c10::Device device, std::shared_ptr<Communicator> host, double timeout_s) {
  setenv("NCCL_NVLS_ENABLE", "0", 0);  // NVLink multicast hangs on some hosts
  // c10d would abort the process when a peer goes; Satin's watchdog ends it with the reason.
  setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", 0);
  setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 0);
  store->setTimeout(std::chrono::milliseconds(std::llround(timeout_s * 1000)));
  return std::make_shared<NcclGroup>(std::move(store), rank, size, device, std::move(host), nullptr);
}

}  // namespace satin::dist
