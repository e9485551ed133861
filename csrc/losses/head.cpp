// Shapes: N tokens, n tokens of a chunk, V vocabulary, H hidden.
#include "losses/head.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace satin::losses {
namespace {

bool is_full_precision(const at::Tensor& x) { return x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble; }

/// Rows with weight, others as zeros: a masked row's NaN stays out of every product.
at::Tensor scored_rows(const at::Tensor& rows, const at::Tensor& weights) {
  return rows.masked_fill((weights == 0).unsqueeze(1), 0);
}

/// total += a^T b in total's dtype: a [n, V], b [n, H], total [V, H].
void add_outer(at::Tensor& total, const at::Tensor& a, const at::Tensor& b) {
  if (is_full_precision(a)) {
    total.addmm_(a.t(), b);
  } else if (a.is_cuda()) {
    at::addmm_out(total, total, a.t(), b, at::kFloat);
  } else {
    total.addmm_(a.to(at::kFloat).t(), b.to(at::kFloat));
  }
}

void check_shapes(const HeadInputs& in, bool with_teacher) {
  SATIN_CHECK(in.hidden.dim() == 2 && in.head.dim() == 2, "hidden ", in.hidden.sizes(), ", head ", in.head.sizes());
  SATIN_CHECK_EQ(in.hidden.size(1), in.head.size(1));
  SATIN_CHECK_EQ(in.targets.size(0), in.hidden.size(0));
  SATIN_CHECK_EQ(in.weights.size(0), in.hidden.size(0));
  if (!with_teacher) return;
  SATIN_CHECK(in.teacher_hidden.defined() && in.teacher_head.defined(), "a loss needs the teacher, and there is none");
  SATIN_CHECK_EQ(in.teacher_hidden.size(0), in.hidden.size(0));
  SATIN_CHECK_EQ(in.teacher_head.size(0), in.head.size(0), "vocabularies of teacher and student");
}

}  // namespace

at::Tensor head_logits(const at::Tensor& hidden, const at::Tensor& head) {
  if (is_full_precision(hidden)) return at::mm(hidden, head.t());
  if (hidden.is_cuda()) return at::mm(hidden, head.t(), at::kFloat);
  return at::mm(hidden.to(at::kFloat), head.to(at::kFloat).t());
}

HeadResult head_losses(const HeadInputs& inputs, const std::vector<Term>& terms, int64_t chunk_tokens) {
  at::NoGradGuard no_grad;
  SATIN_CHECK(chunk_tokens > 0, "chunk of ", chunk_tokens, " tokens");
  const int64_t N = inputs.hidden.size(0), V = inputs.head.size(0);
  const auto precise =
      inputs.hidden.options().dtype(inputs.hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  std::vector<Term> active;
  HeadResult result;
  bool with_teacher = false;
  for (const Term& term : terms) {
    if (term.weight == 0) continue;
    active.push_back(term);
    with_teacher |= term.loss->needs_teacher();
    const bool is_new = result.values.emplace(term.loss->name(), at::zeros({}, precise)).second;
    SATIN_CHECK(is_new, "two losses are called ", term.loss->name());
  }
  check_shapes(inputs, with_teacher);

  result.grad_hidden = at::empty_like(inputs.hidden);
  result.grad_head = at::zeros(inputs.head.sizes(), precise);
  at::Tensor grad = at::empty({std::min(chunk_tokens, N), V}, precise);
  for (int64_t start = 0; start < N; start += chunk_tokens) {
    const int64_t n = std::min(chunk_tokens, N - start);
    const auto rows = [&](const at::Tensor& x) { return x.narrow(0, start, n); };
    const at::Tensor weights = rows(inputs.weights).to(precise.dtype());
    const at::Tensor hidden = scored_rows(rows(inputs.hidden), weights);
    LogitChunk chunk{head_logits(hidden, inputs.head), {}, rows(inputs.targets), weights};
    if (with_teacher) {
      const at::Tensor teacher_hidden = scored_rows(rows(inputs.teacher_hidden), weights);
      chunk.teacher = head_logits(teacher_hidden, inputs.teacher_head).to(precise.dtype());
    }
    at::Tensor chunk_grad = grad.narrow(0, 0, n).zero_();
    for (const Term& term : active)
      result.values[term.loss->name()] += term.loss->accumulate(chunk, term.weight, chunk_grad);
    chunk = {};  // frees the logits before the products
    const at::Tensor slope = chunk_grad.to(inputs.hidden.scalar_type());
    at::Tensor grad_hidden = rows(result.grad_hidden);
    at::mm_out(grad_hidden, slope, inputs.head);
    add_outer(result.grad_head, slope, hidden);
  }
  return result;
}

}  // namespace satin::losses
