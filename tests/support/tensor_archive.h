// Tensors that a Python oracle wrote with torch.save({name: tensor}); independent of Satin's own readers.
#pragma once
#include <torch/csrc/jit/serialization/pickle.h>

#include <map>
#include <string>
#include <vector>

#include "support/test_support.h"

namespace satin::test {

inline std::map<std::string, at::Tensor> load_tensor_archive(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  std::map<std::string, at::Tensor> tensors;
  for (const auto& entry : torch::jit::pickle_load(std::vector<char>(bytes.begin(), bytes.end())).toGenericDict())
    tensors.emplace(entry.key().toStringRef(), entry.value().toTensor());
  return tensors;
}

inline double max_difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace satin::test
