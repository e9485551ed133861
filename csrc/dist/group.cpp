#include "dist/group.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"

namespace satin::dist {

std::vector<double> Group::sum(const std::vector<double>& values) {
  const at::Tensor tensor = at::tensor(values, at::kDouble).to(device_);
  all_reduce(tensor).wait();
  const at::Tensor host = tensor.cpu();
  return {host.data_ptr<double>(), host.data_ptr<double>() + host.numel()};
}

std::shared_ptr<Communicator> Group::subgroup(const std::vector<int64_t>& ranks) {
  std::string name = cat("part", num_parts_++);
  for (int64_t rank : ranks) name += cat("-", rank);
  const auto own = std::find(ranks.begin(), ranks.end(), rank_);
  SATIN_CHECK(own != ranks.end(), "rank ", rank_, " is not in ", name);
  if (ranks.size() == 1) return alone();
  return part(name, own - ranks.begin(), ranks);
}

std::vector<std::string> Group::gather(const std::string& text) {
  const auto options = at::TensorOptions(at::kLong).device(device_);
  const at::Tensor lengths = at::empty({size_}, options);
  all_gather(lengths, at::full({1}, static_cast<int64_t>(text.size()), options)).wait();
  const at::Tensor host_lengths = lengths.cpu();
  const int64_t longest = host_lengths.max().item<int64_t>();
  std::vector<std::string> texts(static_cast<size_t>(size_));
  if (longest == 0) return texts;
  at::Tensor part = at::zeros({longest}, at::kByte);
  std::copy(text.begin(), text.end(), reinterpret_cast<char*>(part.data_ptr<uint8_t>()));
  const at::Tensor whole = at::empty({size_ * longest}, options.dtype(at::kByte));
  part = part.to(device_);
  all_gather(whole, part).wait();
  const at::Tensor host = whole.cpu();
  for (int64_t i = 0; i < size_; ++i)
    texts[static_cast<size_t>(i)].assign(reinterpret_cast<const char*>(host.data_ptr<uint8_t>()) + i * longest,
                                         static_cast<size_t>(host_lengths.data_ptr<int64_t>()[i]));
  return texts;
}

}  // namespace satin::dist
