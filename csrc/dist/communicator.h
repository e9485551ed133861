// Processes that work together: ranks 0 .. size - 1, one a GPU (or one a CPU process).
// Source: c10d (ProcessGroupNCCL, ProcessGroupGloo); the rest of the project does not see it.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace satin::dist {

/// A collective under way. Tensors that it was given must live and stay untouched until wait().
class Pending {
 public:
  struct Work;
  Pending() = default;
  explicit Pending(std::shared_ptr<Work> work) : work_(std::move(work)) {}
  /// CPU: returns when it is done. CUDA: makes the current stream wait; the host goes on.
  /// Throws PeerError when a rank is lost.
  void wait();

 private:
  std::shared_ptr<Work> work_;  ///< null: done
};

/// How far this rank is in one group, for those who watch it.
struct GroupProgress {
  int64_t entered = 0;       ///< collectives it has called
  bool outstanding = false;  ///< the last one is not done yet
};

/// A contiguous tensor that ranks have slices of: rank r elements [r slice, (r + 1) slice), the last ones fewer or
/// none.
struct Sliced {
  at::Tensor whole;
  int64_t slice;  ///< at least 1
};
/// One that is to be gathered: `whole`, of no elements, takes its shape and memory when it is written, not before.
struct ToGather {
  at::Tensor whole;
  std::vector<int64_t> shape;
  int64_t slice;
};

/// Collectives are called by every rank in the same order, with equal shapes and dtypes. Tensors are contiguous and on
/// the group's device; sums are over ranks, and every rank gets the same bits.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;

  /// Sums in place, in one message. One dtype; no two overlap; an empty list or tensor is fine.
  virtual Pending all_reduce(const std::vector<at::Tensor>& tensors) = 0;
  Pending all_reduce(const at::Tensor& tensor) { return all_reduce(std::vector<at::Tensor>{tensor}); }
  /// The same, but values are sent in `dtype` and sums rounded to it (not in a group of one).
  virtual Pending all_reduce_in(at::ScalarType dtype, const std::vector<at::Tensor>& tensors);
  /// whole [size * n], part [n]: whole = every rank's part, in the ranks' order.
  virtual Pending all_gather(const at::Tensor& whole, const at::Tensor& part) = 0;
  /// part [n], whole [size * n]: part = this rank's slice of the sum.
  virtual Pending reduce_scatter(const at::Tensor& part, const at::Tensor& whole) = 0;
  /// The same of lists, in one message. parts[i], of one dtype and contiguous: this rank's slice of wholes[i].
  virtual Pending all_gather(const std::vector<ToGather>& wholes, const std::vector<at::Tensor>& parts);
  /// part: this rank's slices of the sums, one after the other, made in its dtype. What it has where a slice reaches
  /// beyond its whole is anything.
  virtual Pending reduce_scatter(const at::Tensor& part, const std::vector<Sliced>& wholes);
  /// Overwrites with root's values.
  virtual Pending broadcast(const at::Tensor& tensor, int64_t root) = 0;

  /// Host values, and these calls wait for all ranks. They may not be called from two threads at a time.
  virtual std::vector<double> sum(const std::vector<double>& values) = 0;
  virtual std::vector<std::string> gather(const std::string& text) = 0;
  virtual void barrier() = 0;

  /// Whether what collectives compute can wait for gaps that a stream of high priority leaves; sums are in place then.
  /// Called by every rank: it may be a collective itself.
  virtual bool yields() { return false; }

  /// Seconds so far that this rank's computation stood still for collectives of this group (on CUDA: its stream): what
  /// nothing hid, others' lateness included. Exact when the device has finished. Not of duplicates and subgroups.
  virtual double waited_s() const { return 0; }

  /// Another group of the same ranks, so that another thread can use it. Called by every rank in the same order.
  virtual std::shared_ptr<Communicator> duplicate() = 0;

  /// Of this group and its duplicates, in the order of their making. Any thread may ask at any time.
  virtual std::vector<GroupProgress> progress() const { return {}; }

  /// A group of some of these ranks, in this order. Called by every one of them, and by no other, in the same order.
  virtual std::shared_ptr<Communicator> subgroup(const std::vector<int64_t>& ranks) = 0;

  /// The group of one: nothing is sent.
  static std::shared_ptr<Communicator> alone();

 protected:
  /// That the lists fit each other, of a gather and of a sum.
  void check(const std::vector<ToGather>& wholes, const std::vector<at::Tensor>& parts) const;
  void check(const at::Tensor& part, const std::vector<Sliced>& wholes) const;
};

}  // namespace satin::dist
