// Shapes: B windows, T tokens, N positions, n of a chunk, V vocabulary, k candidates.
#include "eval/smoothness.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "eval/candidates.h"
#include "eval/in_batches.h"
#include "eval/input_gradients.h"

namespace satin::eval {
namespace {

constexpr double kNucleusMass = 0.9;

/// Of a batch, or of all of them: sums, not yet means.
struct Models {
  ModelSmoothness student;
  std::optional<ModelSmoothness> teacher;
};

Models nothing(bool with_teacher, int64_t num_candidates) {
  ModelSmoothness model;
  if (!with_teacher) return {model, {}};
  model.neighbour_nll.resize(num_candidates);
  return {model, model};
}

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
  for (size_t k = 0; k < sums.neighbour_nll.size(); ++k)
    sums.neighbour_nll[k] += nll[static_cast<int64_t>(k)].item<double>();
  sums.effective[0] += total(effective(proposed, kThetas[0]));
  sums.effective[1] += total(effective(proposed, kThetas[1]));
  sums.effective[2] += total(effective(proposed, best + std::log(kThetas[2])));
}

void add_chunk(Models& sums, const at::Tensor& student_logits, const at::Tensor& teacher_logits, int64_t num_tokens) {
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

/// Every sum, in one order.
template <class Visit>
void for_each_sum(ModelSmoothness& sums, const Visit& visit) {
  for (double* sum : {&sums.entropy, &sums.nucleus_size, &sums.mass_on_teacher_top}) visit(*sum);
  for (double& sum : sums.neighbour_nll) visit(sum);
  for (double& sum : sums.effective) visit(sum);
}

void divide(ModelSmoothness& sums, int64_t num_positions) {
  const double scale = 1 / static_cast<double>(num_positions);
  for_each_sum(sums, [&](double& sum) { sum *= scale; });
}

/// A model's part of a batch's numbers: its sums, then how many norms, and the norms.
void put(Numbers& numbers, ModelSmoothness& batch) {
  for_each_sum(batch, [&](double sum) { numbers.push_back(sum); });
  for (const auto* norms : {&batch.x0, &batch.x1}) {
    numbers.push_back(static_cast<double>(norms->size()));
    numbers.insert(numbers.end(), norms->begin(), norms->end());
  }
}
void add(ModelSmoothness& sums, Numbers::const_iterator& at) {
  for_each_sum(sums, [&](double& sum) { sum += *at++; });
  for (auto* norms : {&sums.x0, &sums.x1})
    for (auto left = static_cast<int64_t>(*at++); left > 0; --left) norms->push_back(static_cast<float>(*at++));
}

}  // namespace

Smoothness smoothness(models::Decoder& student, models::Decoder* teacher, const std::vector<int32_t>& tokens,
                      const SmoothnessOptions& options, dist::Communicator& ranks) {
  Smoothness result;
  result.windows = cut_windows("smoothness", tokens, options.sequence_length, options.limit);
  result.options = options;
  if (options.num_tokens == 0) result.options.num_tokens = student.config().vocab_size;
  const int64_t num_tokens = result.options.num_tokens;
  for (const models::Decoder* model : {&student, teacher})
    SATIN_CHECK(!model || model->config().vocab_size >= num_tokens, "a vocabulary of ", model->config().vocab_size,
                ", ", num_tokens, " tokens");

  const Windows& windows = result.windows;
  const Models none = nothing(teacher != nullptr, std::min(kNumCandidates, num_tokens));
  const auto read = [&](Range range) {
    Models sums = none;
    const at::Tensor batch = windows.batch(range.first, range.number);
    const at::Tensor student_rows = add_gradients(sums.student, student, batch, options, "student");
    const at::Tensor teacher_rows =
        teacher ? add_gradients(*sums.teacher, *teacher, batch, options, "teacher") : at::Tensor();
    const at::NoGradGuard no_grad;
    for (int64_t start = 0; start < student_rows.size(0); start += options.chunk_tokens) {
      const int64_t n = std::min(options.chunk_tokens, student_rows.size(0) - start);
      add_chunk(sums, student.logits(student_rows.narrow(0, start, n)),
                teacher ? teacher->logits(teacher_rows.narrow(0, start, n)) : at::Tensor(), num_tokens);
    }
    Numbers numbers;
    put(numbers, sums.student);
    if (teacher) put(numbers, *sums.teacher);
    return numbers;
  };
  Models all = none;
  in_batches(ranks, "smoothness: window", even_batches(windows.count, options.batch_tokens / windows.length), read,
             [&](Range, const Numbers& numbers) {
               auto at = numbers.begin();
               add(all.student, at);
               if (teacher) add(*all.teacher, at);
             });
  result.student = std::move(all.student);
  result.teacher = std::move(all.teacher);
  divide(result.student, windows.count * windows.length);
  if (!teacher) return result;
  divide(*result.teacher, windows.count * windows.length);

  const TreeOptions tree = {
      .num_roots = options.num_roots, .top_k = kNumCandidates, .num_tokens = num_tokens, .seed = options.seed};
  result.roots = draw_roots(windows, tree);
  result.student.paths = walk_tree(student, *teacher, windows, result.roots, tree, ranks);
  result.teacher->paths = walk_tree(*teacher, *teacher, windows, result.roots, tree, ranks);
  return result;
}

}  // namespace satin::eval
