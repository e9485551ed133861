// Shapes: B windows, T tokens, N positions, n of a chunk, V vocabulary, k candidates.
#include "eval/smoothness.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "eval/candidates.h"
#include "eval/input_gradients.h"

namespace satin::eval {
namespace {

constexpr double kNucleusMass = 0.9;

double total(const at::Tensor& values) { return values.sum(at::kDouble).item<double>(); }

void append(std::vector<float>& norms, const at::Tensor& fresh, const char* who, const char* where) {
  if (!fresh.defined()) return;
  const at::Tensor values = fresh.to(at::kCPU, at::kFloat).contiguous();
  if (!values.isfinite().all().item<bool>())
    throw UserError(cat("smoothness: the gradient of the ", who, "'s loss with respect to ", where,
                        " is not finite; are its weights sound (satin inspect), or is float32 needed "
                        "(--compute-dtype)?"));
  norms.insert(norms.end(), values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel());
}

/// Forward and backward of one batch; returns the hidden states as rows [N, H].
at::Tensor add_gradients(ModelSmoothness& sums, models::Decoder& decoder, const at::Tensor& tokens,
                         const SmoothnessOptions& options, const char* who) {
  const InputGradients gradients = input_gradients(decoder, tokens, options.chunk_tokens);
  append(sums.x0, gradients.x0, who, "the embeddings");
  append(sums.x1, gradients.x1, who, "the input of layer 1");
  return gradients.hidden.flatten(0, 1);
}

/// What a model's distribution says alone.
void add_spread(ModelSmoothness& sums, const at::Tensor& log_prob) {
  const at::Tensor prob = log_prob.exp();
  sums.entropy += total(-(prob * log_prob).masked_fill_(prob == 0, 0));
  sums.nucleus_size += total(nucleus_size(prob, kNucleusMass));
}

/// What the teacher says of a model's candidates. `best`: its own largest log-probability [n, 1].
void add_judgement(ModelSmoothness& sums, const Candidates& proposed, const at::Tensor& best) {
  const at::Tensor nll = -proposed.log_prob.sum(0).cpu();
  sums.neighbour_nll.resize(nll.size(0));
  for (size_t k = 0; k < sums.neighbour_nll.size(); ++k)
    sums.neighbour_nll[k] += nll[static_cast<int64_t>(k)].item<double>();
  sums.effective[0] += total(effective(proposed, kThetas[0]));
  sums.effective[1] += total(effective(proposed, kThetas[1]));
  sums.effective[2] += total(effective(proposed, best + std::log(kThetas[2])));
}

void add_chunk(Smoothness& sums, const at::Tensor& student_logits, const at::Tensor& teacher_logits) {
  const int64_t num_tokens = sums.options.num_tokens;
  const at::Tensor student_log_prob = student_logits.log_softmax(1);
  add_spread(sums.student, student_log_prob);
  if (!sums.teacher) return;
  const at::Tensor teacher_log_prob = teacher_logits.log_softmax(1);
  add_spread(*sums.teacher, teacher_log_prob);
  const Candidates own = candidates(teacher_logits, teacher_log_prob, num_tokens, kNumCandidates);
  const Candidates proposed = candidates(student_logits, teacher_log_prob, num_tokens, kNumCandidates);
  const at::Tensor best = own.log_prob.narrow(1, 0, 1);
  add_judgement(*sums.teacher, own, best);
  add_judgement(sums.student, proposed, best);
  sums.teacher->mass_on_teacher_top += total(teacher_log_prob.gather(1, own.ids).exp());
  sums.student.mass_on_teacher_top += total(student_log_prob.gather(1, own.ids).exp());
}

void divide(ModelSmoothness& sums, int64_t num_positions) {
  const double scale = 1 / static_cast<double>(num_positions);
  for (double* sum : {&sums.entropy, &sums.nucleus_size, &sums.mass_on_teacher_top}) *sum *= scale;
  for (double& sum : sums.neighbour_nll) sum *= scale;
  for (double& sum : sums.effective) sum *= scale;
}

}  // namespace

Smoothness smoothness(models::Decoder& student, models::Decoder* teacher, const std::vector<int32_t>& tokens,
                      const SmoothnessOptions& options) {
  Smoothness result;
  result.windows = cut_windows("smoothness", tokens, options.sequence_length, options.limit);
  result.options = options;
  if (teacher) result.teacher.emplace();
  if (options.num_tokens == 0) result.options.num_tokens = student.config().vocab_size;
  for (const models::Decoder* model : {&student, teacher})
    SATIN_CHECK(!model || model->config().vocab_size >= result.options.num_tokens, "a vocabulary of ",
                model->config().vocab_size, ", ", result.options.num_tokens, " tokens");

  const Windows& windows = result.windows;
  const int64_t at_once = std::max<int64_t>(1, options.batch_tokens / windows.length);
  for (int64_t first = 0; first < windows.count; first += at_once) {
    const at::Tensor batch = windows.batch(first, std::min(at_once, windows.count - first));
    const at::Tensor student_rows = add_gradients(result.student, student, batch, options, "student");
    const at::Tensor teacher_rows =
        teacher ? add_gradients(*result.teacher, *teacher, batch, options, "teacher") : at::Tensor();
    const at::NoGradGuard no_grad;
    for (int64_t start = 0; start < student_rows.size(0); start += options.chunk_tokens) {
      const int64_t n = std::min(options.chunk_tokens, student_rows.size(0) - start);
      add_chunk(result, student.logits(student_rows.narrow(0, start, n)),
                teacher ? teacher->logits(teacher_rows.narrow(0, start, n)) : at::Tensor());
    }
    progress(cat("smoothness: window ", first + batch.size(0), " of ", windows.count));
    if (interrupt_signal()) throw InterruptedError("stopped by a signal during evaluation; nothing to save");
  }
  end_progress();
  divide(result.student, windows.count * windows.length);
  if (!teacher) return result;
  divide(*result.teacher, windows.count * windows.length);

  const TreeOptions tree = {.num_roots = options.num_roots,
                            .top_k = kNumCandidates,
                            .num_tokens = result.options.num_tokens,
                            .seed = options.seed};
  result.roots = draw_roots(windows, tree);
  result.student.paths = walk_tree(student, *teacher, windows, result.roots, tree);
  result.teacher->paths = walk_tree(*teacher, *teacher, windows, result.roots, tree);
  return result;
}

}  // namespace satin::eval
