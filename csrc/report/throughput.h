// How much arithmetic a token is, how much the device could do, and how fast it goes.
#pragma once
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>

namespace satin::report {

/// What the formula needs of a model.
struct ModelSize {
  int64_t matmul_parameters = 0;  ///< weights of the decoder's linears and of the LM head once (tied or not)
  int64_t num_layers = 0;
  int64_t attention_size = 0;  ///< heads * head_dim (the hidden size, for most)
};

/// Floating-point operations of one training token: 6 N + 12 layers * hidden * sequence_length / 2 (causal); recompute
/// is not counted as work. Source: Chowdhery et al. 2022 (PaLM), appendix B.
double training_flops_per_token(const ModelSize& model, int64_t sequence_length);
/// The same for a forward alone (a teacher): 2 N + 4 layers * hidden * sequence_length / 2.
double forward_flops_per_token(const ModelSize& model, int64_t sequence_length);

/// Dense bf16 peak in FLOP/s of a device by its name ("NVIDIA H100 80GB HBM3"), or nothing when it is not known.
/// Source: the vendor's data sheets (without sparsity).
std::optional<double> peak_flops_per_second(const std::string& device_name);

/// Tokens a second over the last `window` marks.
class RateMeter {
 public:
  explicit RateMeter(size_t window = 50) : window_(window) {}
  /// `tokens` were finished since the last mark; `now_s` is a monotonic clock.
  void mark(double now_s, int64_t tokens);
  /// 0 until there are two marks.
  double tokens_per_second() const;

 private:
  size_t window_;
  std::deque<std::pair<double, int64_t>> marks_;  ///< time and tokens so far
};

}  // namespace satin::report
