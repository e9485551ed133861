#include "ops/logit_losses.h"

#include <torch/library.h>

#include <array>

#include "core/error.h"
#include "ops/find_operator.h"
#include "ops/logit_losses_checks.h"

TORCH_LIBRARY_FRAGMENT(satin, m) {  // numbers: weights, temperatures and share, in the order of make_losses()
  m.def(
      "logit_losses(Tensor student, Tensor? teacher, Tensor targets, Tensor weights, Tensor(a!) grad, float[] numbers, "
      "int divergence, int top_k, int num_tokens) -> Tensor");
  m.def(
      "stored_losses(Tensor student, Tensor ids, Tensor logits, Tensor log_rest, Tensor log_mass, Tensor targets, "
      "Tensor weights, Tensor(a!) grad, float[] numbers) -> Tensor");
  m.def("top_k(Tensor logits, int k) -> (Tensor, Tensor)");
}

namespace satin::ops {

kernels::LogitLosses make_losses(at::ArrayRef<double> numbers, int64_t divergence, int64_t top_k, int64_t num_tokens) {
  SATIN_CHECK_EQ(numbers.size(), 6u);
  return {.cross_entropy = numbers[0],
          .distillation = numbers[1],
          .temperature = numbers[2],
          .divergence = static_cast<kernels::Divergence>(divergence),
          .share = numbers[3],
          .smoothness = numbers[4],
          .smoothness_temperature = numbers[5],
          .top_k = top_k,
          .num_tokens = num_tokens};
}

LogitLossInputs::LogitLossInputs(const at::Tensor& student, const at::Tensor& targets, const at::Tensor& weights,
                                 const at::Tensor& grad)
    : student(student.contiguous()), targets(targets.contiguous()), weights(weights.contiguous()) {
  SATIN_CHECK(student.dim() == 2 && student.size(1) > 0, "student logits ", student.sizes(), ", expected [N, V]");
  extent = {student.size(0), student.size(1)};
  SATIN_CHECK(grad.sizes() == student.sizes() && grad.is_contiguous(), "gradient ", grad.sizes(), " of logits ",
              student.sizes());
  SATIN_CHECK(targets.dim() == 1 && targets.size(0) == extent.num_rows && targets.scalar_type() == at::kLong,
              "targets ", targets.sizes(), " ", targets.scalar_type(), " of ", extent.num_rows, " rows");
  SATIN_CHECK(
      weights.dim() == 1 && weights.size(0) == extent.num_rows && weights.scalar_type() == student.scalar_type(),
      "weights ", weights.sizes(), " ", weights.scalar_type(), " of ", extent.num_rows, " rows");
  for (const at::Tensor& x : {grad, targets, weights})
    SATIN_CHECK(x.device() == student.device(), "logits on ", student.device(), ", another input on ", x.device());
  values = at::empty({kernels::kNumLogitLosses, extent.num_rows}, student.options());
}

LogitLossInputs::LogitLossInputs(const kernels::LogitLosses& losses, const at::Tensor& student,
                                 const std::optional<at::Tensor>& teacher, const at::Tensor& targets,
                                 const at::Tensor& weights, const at::Tensor& grad)
    : LogitLossInputs(student, targets, weights, grad) {
  if (losses.needs_teacher()) {
    SATIN_CHECK(teacher && teacher->defined(), "a loss needs the teacher, and there is none");
    SATIN_CHECK(teacher->sizes() == student.sizes() && teacher->scalar_type() == student.scalar_type() &&
                    teacher->device() == student.device(),
                "teacher logits ", teacher->sizes(), " ", teacher->scalar_type(), ", student's ", student.sizes(), " ",
                student.scalar_type());
    this->teacher = teacher->contiguous();
  }
}

StoredTensors::StoredTensors(const at::Tensor& student, const at::Tensor& ids, const at::Tensor& logits,
                             const at::Tensor& log_rest, const at::Tensor& log_mass)
    : ids(ids.contiguous()),
      logits(logits.contiguous()),
      log_rest(log_rest.contiguous()),
      log_mass(log_mass.contiguous()) {
  SATIN_CHECK(ids.dim() == 2 && ids.size(0) == student.size(0) && ids.scalar_type() == at::kInt && ids.size(1) > 0,
              "stored ids ", ids.sizes(), " ", ids.scalar_type(), " of ", student.size(0), " rows");
  SATIN_CHECK(logits.sizes() == ids.sizes(), "stored logits ", logits.sizes(), ", ids ", ids.sizes());
  SATIN_CHECK_EQ(log_rest.numel(), student.size(0));
  SATIN_CHECK_EQ(log_mass.numel(), student.size(0));
  for (const at::Tensor& x : {logits, log_rest, log_mass})
    SATIN_CHECK(x.scalar_type() == student.scalar_type(), "stored in ", x.scalar_type(), ", student's logits ",
                student.scalar_type());
  for (const at::Tensor& x : {ids, logits, log_rest, log_mass})
    SATIN_CHECK(x.device() == student.device(), "stored on ", x.device(), ", student's logits on ", student.device());
}

kernels::StoredTopK StoredTensors::pointers() const {
  return {ids.size(1), ids.const_data_ptr<int32_t>(), logits.const_data_ptr(), log_rest.const_data_ptr(),
          log_mass.const_data_ptr()};
}

kernels::Extent top_k_extent(const at::Tensor& logits, int64_t k) {
  SATIN_CHECK(logits.dim() == 2 && k >= 1 && k <= logits.size(1), "top ", k, " of ", logits.sizes());
  return {logits.size(0), logits.size(1)};
}

namespace {

/// In the order of make_losses().
std::array<double, 6> numbers_of(const LogitLosses& losses) {
  return {losses.cross_entropy, losses.distillation, losses.temperature,
          losses.share,         losses.smoothness,   losses.smoothness_temperature};
}

}  // namespace

at::Tensor logit_losses(const LogitLosses& losses, const at::Tensor& student, const at::Tensor& teacher,
                        const at::Tensor& targets, const at::Tensor& weights, at::Tensor& grad) {
  using Signature = at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&, const at::Tensor&,
                               const at::Tensor&, at::Tensor&, at::ArrayRef<double>, int64_t, int64_t, int64_t);
  static const auto op = find_operator<Signature>("satin::logit_losses");
  return op.call(student, teacher.defined() ? std::optional(teacher) : std::nullopt, targets, weights, grad,
                 numbers_of(losses), static_cast<int64_t>(losses.divergence), losses.top_k, losses.num_tokens);
}

StoredTopK StoredTopK::narrow(int64_t start, int64_t length) const {
  if (!defined()) return {};
  return {ids.narrow(0, start, length), logits.narrow(0, start, length), log_rest.narrow(0, start, length),
          log_mass.narrow(0, start, length)};
}

at::Tensor stored_losses(const LogitLosses& losses, const at::Tensor& student, const StoredTopK& teacher,
                         const at::Tensor& targets, const at::Tensor& weights, at::Tensor& grad) {
  using Signature =
      at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                 const at::Tensor&, const at::Tensor&, at::Tensor&, at::ArrayRef<double>);
  static const auto op = find_operator<Signature>("satin::stored_losses");
  SATIN_CHECK(losses.divergence == Divergence::kMixture, "a stored top k gives the forward KL alone");
  return op.call(student, teacher.ids, teacher.logits, teacher.log_rest, teacher.log_mass, targets, weights, grad,
                 numbers_of(losses));
}

TopK top_k(const at::Tensor& logits, int64_t k) {
  static const auto op = find_operator<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, int64_t)>("satin::top_k");
  auto [values, ids] = op.call(logits, k);
  return {values, ids};
}

}  // namespace satin::ops
