// Shapes: N tokens, n tokens of a chunk, V vocabulary, H hidden.
#include "losses/head.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"

namespace satin::losses {
namespace {

bool is_full_precision(const at::Tensor& x) { return x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble; }
at::ScalarType wide_dtype(at::ScalarType compute) { return compute == at::kDouble ? at::kDouble : at::kFloat; }

/// Operands as this device multiplies them into fp32: CUDA takes bf16, the CPU's fp32 product wants fp32.
at::Tensor operand(const at::Tensor& x) { return is_full_precision(x) || x.is_cuda() ? x : x.to(at::kFloat); }

/// out = a b^T in out's dtype; a [n, H], b [V, H], operands.
void product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() == out.scalar_type())
    at::mm_out(out, a, b.t());
  else
    at::mm_out(out, a, b.t(), out.scalar_type());
}

/// total += a^T b in total's dtype; a [n, V], b [n, H], operands.
void add_outer(at::Tensor& total, const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() == total.scalar_type())
    total.addmm_(a.t(), b);
  else
    at::addmm_out(total, total, a.t(), b, total.scalar_type());
}

void check_shapes(const HeadInputs& in, bool with_teacher) {
  SATIN_CHECK(in.hidden.dim() == 2 && in.head.dim() == 2, "hidden ", in.hidden.sizes(), ", head ", in.head.sizes());
  SATIN_CHECK_EQ(in.hidden.size(1), in.head.size(1));
  SATIN_CHECK_EQ(in.targets.size(0), in.hidden.size(0));
  SATIN_CHECK_EQ(in.weights.size(0), in.hidden.size(0));
  if (!with_teacher || in.stored_teacher.defined()) return;
  SATIN_CHECK(in.teacher_hidden.defined() && in.teacher_head.defined(), "a loss needs the teacher, and there is none");
  SATIN_CHECK_EQ(in.teacher_hidden.size(0), in.hidden.size(0));
  SATIN_CHECK_EQ(in.teacher_head.size(0), in.head.size(0), "vocabularies of teacher and student");
}

}  // namespace

HeadChunks::HeadChunks(int64_t chunk_tokens, int64_t num_tokens, int64_t vocab_size, at::ScalarType compute_dtype,
                       const at::Device& device) {
  SATIN_CHECK(chunk_tokens >= 0, "chunk of ", chunk_tokens, " tokens");
  const int64_t logits_budget = device.is_cuda() ? int64_t{256} << 20 : int64_t{8} << 20;
  const int64_t gradients_budget = device.is_cuda() ? int64_t{896} << 20 : int64_t{32} << 20;
  const auto rows = [&](int64_t budget, at::ScalarType dtype) {
    const int64_t fit = budget / (vocab_size * static_cast<int64_t>(c10::elementSize(dtype)));
    return std::max<int64_t>(1, fit >= 256 ? fit / 256 * 256 : fit);
  };
  gradients = std::min(num_tokens, chunk_tokens > 0 ? chunk_tokens : rows(gradients_budget, compute_dtype));
  logits = std::min(gradients, rows(logits_budget, wide_dtype(compute_dtype)));
}

int64_t HeadChunks::bytes(int64_t vocab_size, at::ScalarType compute_dtype, bool with_teacher) const {
  const auto size = [](at::ScalarType dtype) { return static_cast<int64_t>(c10::elementSize(dtype)); };
  return vocab_size *
         (gradients * size(compute_dtype) + logits * size(wide_dtype(compute_dtype)) * (with_teacher ? 2 : 1));
}

at::Tensor head_logits(const at::Tensor& hidden, const at::Tensor& head) {
  at::Tensor logits =
      at::empty({hidden.size(0), head.size(0)}, hidden.options().dtype(wide_dtype(hidden.scalar_type())));
  product_out(logits, operand(hidden), operand(head));
  return logits;
}

HeadResult head_losses(const HeadInputs& inputs, const std::vector<Term>& terms, int64_t chunk_tokens) {
  at::NoGradGuard no_grad;
  const int64_t N = inputs.hidden.size(0), V = inputs.head.size(0);
  const at::ScalarType compute = inputs.hidden.scalar_type();
  const auto wide = inputs.hidden.options().dtype(wide_dtype(compute));
  HeadResult result;
  ops::LogitLosses losses;
  std::vector<const LogitLoss*> active;
  for (const Term& term : terms) {
    if (term.weight == 0) continue;
    term.loss->set(losses, term.weight);
    for (const LogitLoss* other : active)
      SATIN_CHECK(other->row() != term.loss->row(), "two losses are called ", term.loss->name());
    active.push_back(term.loss);
  }
  check_shapes(inputs, losses.needs_teacher());
  const bool stored = losses.needs_teacher() && inputs.stored_teacher.defined();
  const bool with_teacher = losses.needs_teacher() && !stored;  // whose logits are computed
  result.grad_head = inputs.grad_head.defined() ? inputs.grad_head : at::zeros(inputs.head.sizes(), wide);
  if (active.empty() || N == 0) {
    result.grad_hidden = at::zeros_like(inputs.hidden);
    for (const LogitLoss* loss : active) result.values[loss->name()] = at::zeros({}, wide);
    return result;
  }

  const HeadChunks chunks(chunk_tokens, N, V, compute, inputs.hidden.device());
  const at::Tensor head = operand(inputs.head), weights = inputs.weights.to(wide.dtype());
  const at::Tensor teacher_head = with_teacher ? operand(inputs.teacher_head) : at::Tensor();
  at::Tensor student_logits = at::empty({chunks.logits, V}, wide);
  at::Tensor teacher_logits =
      with_teacher ? at::empty({chunks.logits, V}, inputs.teacher_hidden.options().dtype(wide.dtype())) : at::Tensor();
  at::Tensor slopes = at::empty({chunks.gradients, V}, inputs.hidden.options());
  at::Tensor totals = at::zeros({kernels::kNumLogitLosses}, wide);
  result.grad_hidden = at::empty_like(inputs.hidden);

  for (int64_t start = 0; start < N; start += chunks.gradients) {
    const int64_t rows = std::min(chunks.gradients, N - start);
    // A masked row's NaN stays out of every product.
    const at::Tensor masked = (weights.narrow(0, start, rows) == 0).unsqueeze(1);
    const at::Tensor hidden = operand(inputs.hidden.narrow(0, start, rows).masked_fill(masked, 0));
    for (int64_t first = start; first < start + rows; first += chunks.logits) {
      const int64_t n = std::min(chunks.logits, start + rows - first);
      at::Tensor student = student_logits.narrow(0, 0, n), teacher, slope = slopes.narrow(0, first - start, n);
      product_out(student, hidden.narrow(0, first - start, n), head);
      if (with_teacher) {
        teacher = teacher_logits.narrow(0, 0, n);
        product_out(teacher, operand(inputs.teacher_hidden.narrow(0, first, n)), teacher_head);
      }
      const at::Tensor targets = inputs.targets.narrow(0, first, n), row_weights = weights.narrow(0, first, n);
      totals += (stored ? ops::stored_losses(losses, student, inputs.stored_teacher.narrow(first, n), targets,
                                             row_weights, slope)
                        : ops::logit_losses(losses, student, teacher, targets, row_weights, slope))
                    .sum(1);
    }
    const at::Tensor slope = operand(slopes.narrow(0, 0, rows));
    at::Tensor grad_hidden = result.grad_hidden.narrow(0, start, rows);
    if (slope.scalar_type() == compute)
      at::mm_out(grad_hidden, slope, head);
    else
      grad_hidden.copy_(slope.mm(head));
    add_outer(result.grad_head, slope, hidden);
  }
  for (const LogitLoss* loss : active) result.values[loss->name()] = totals[loss->row()];
  return result;
}

}  // namespace satin::losses
