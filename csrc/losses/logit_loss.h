// A loss on next-token logits, with its gradient in closed form. Shapes: N tokens, V vocabulary.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

namespace satin::losses {

/// One chunk of tokens. Logits are fp32 (fp64 in fp64 runs); in rows with weight 0 they have no meaning but no NaN
/// either (head_losses sees to that), and targets may be anything.
struct LogitChunk {
  at::Tensor student;  ///< [N, V]
  at::Tensor teacher;  ///< [N, V]; undefined when no term needs it
  at::Tensor targets;  ///< [N] int64
  at::Tensor weights;  ///< [N]: 1 / scored tokens of the step, or 0 where masked
};

class LogitLoss {
 public:
  virtual ~LogitLoss() = default;
  virtual std::string name() const = 0;  ///< "ce", "kd", "smoothness"
  virtual bool needs_teacher() const = 0;
  /// Adds scale * d(sum_n weights_n L_n)/d student to grad [N, V] and returns sum_n weights_n L_n (0-dim, not scaled).
  virtual at::Tensor accumulate(const LogitChunk& chunk, double scale, at::Tensor& grad) const = 0;
};

}  // namespace satin::losses
