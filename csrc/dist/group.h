// What the backends share: host values travel as tensors, and every group counts its collectives.
#pragma once
#include <c10/core/Device.h>

#include "dist/meter.h"

namespace satin::dist {

class Group : public Communicator {
 public:
  Group(int64_t rank, int64_t size, c10::Device device, std::shared_ptr<Meters> meters)
      : rank_(rank), size_(size), device_(device), meters_(meters ? std::move(meters) : std::make_shared<Meters>()) {}
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return size_; }
  std::vector<double> sum(const std::vector<double>& values) override;
  std::vector<std::string> gather(const std::string& text) override;
  void barrier() override { sum({0}); }
  std::vector<GroupProgress> progress() const override { return meters_->read(); }
  std::shared_ptr<Communicator> subgroup(const std::vector<int64_t>& ranks) override;

 protected:
  /// A group of `ranks`, of which this one is the `rank`th; `name` is theirs alone.
  virtual std::shared_ptr<Communicator> part(const std::string& name, int64_t rank,
                                             const std::vector<int64_t>& ranks) = 0;

  const int64_t rank_, size_;
  const c10::Device device_;
  const std::shared_ptr<Meters> meters_;
  int64_t num_parts_ = 0;
};

}  // namespace satin::dist
