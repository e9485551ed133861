#include "report/throughput.h"

#include <array>

namespace satin::report {
namespace {

double attention_products(const ModelSize& model, int64_t sequence_length) {
  return 0.5 * static_cast<double>(model.num_layers) * static_cast<double>(model.attention_size) *
         static_cast<double>(sequence_length);
}

}  // namespace

double training_flops_per_token(const ModelSize& model, int64_t sequence_length) {
  return 6 * static_cast<double>(model.matmul_parameters) + 12 * attention_products(model, sequence_length);
}

double forward_flops_per_token(const ModelSize& model, int64_t sequence_length) {
  return 2 * static_cast<double>(model.matmul_parameters) + 4 * attention_products(model, sequence_length);
}

std::optional<double> peak_flops_per_second(const std::string& device_name) {
  struct Device {
    const char* name;
    double teraflops;
  };
  // The first name that the device's contains; PCIe and NVL variants of the H100 come before the SXM.
  static constexpr std::array kDevices = {Device{"H100 PCIe", 756}, Device{"H100 NVL", 835}, Device{"H100", 989},
                                          Device{"H200", 989},      Device{"H800", 989},     Device{"A100", 312}};
  for (const Device& device : kDevices)
    if (device_name.find(device.name) != std::string::npos) return device.teraflops * 1e12;
  return {};
}

void RateMeter::mark(double now_s, int64_t tokens) {
  marks_.emplace_back(now_s, (marks_.empty() ? 0 : marks_.back().second) + tokens);
  if (marks_.size() > window_ + 1) marks_.pop_front();
}

double RateMeter::tokens_per_second() const {
  if (marks_.size() < 2 || marks_.back().first <= marks_.front().first) return 0;
  return static_cast<double>(marks_.back().second - marks_.front().second) /
         (marks_.back().first - marks_.front().first);
}

}  // namespace satin::report
