#include "kernels/logit_losses.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/exponential.h"
#include "kernels/logit_losses_math.h"

namespace satin::kernels {
namespace {

constexpr int kLanes = 16;  ///< sums run in so many partial ones, which compilers vectorise

/// sum over i of term(i), in partial sums.
template <class T, class Term>
SATIN_INLINE T sum_of(int64_t n, const Term& term) {
  T lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] += term(i + j);
  T sum = 0;
  for (; i < n; ++i) sum += term(i);
  for (T lane : lanes) sum += lane;
  return sum;
}

/// The largest; NaN is passed over.
template <class T>
SATIN_INLINE T largest(const T* x, int64_t n) {
  T lanes[kLanes];
  std::fill_n(lanes, kLanes, kNegativeInfinity<T>);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] = lanes[j] < x[i + j] ? x[i + j] : lanes[j];
  for (; i < n; ++i) lanes[0] = lanes[0] < x[i] ? x[i] : lanes[0];
  return *std::max_element(lanes, lanes + kLanes);
}

/// ln(sum of exp(factor x)) as factor * top + log, `top` the largest x: a sum of thousands would have no digits left
/// for the fractions that probabilities are made of.
template <class T>
struct LogSum {
  T top, factor, log;

  SATIN_INLINE LogSum(const T* x, int64_t n, T factor) : top(largest(x, n)), factor(factor), log(top) {
    if (top == kNegativeInfinity<T>) {
      if (std::any_of(x, x + n, [](T v) { return v != v; })) log = T(NAN);
    } else {
      log = std::log(sum_of<T>(n, [&](int64_t i) { return exp_of((x[i] - top) * factor); }));
    }
  }
  SATIN_INLINE bool empty() const { return log == kNegativeInfinity<T>; }
  /// With x taken from `origin`.
  SATIN_INLINE T from(T origin) const { return empty() ? log : (top - origin) * factor + log; }
  /// ln of x's share of the sum.
  SATIN_INLINE T log_share(T x) const { return (x - top) * factor - log; }
};

/// Ids of the k largest of n, in falling order, ties to the lower id; NaN before everything.
template <class T>
void find_top_k(const T* x, int64_t n, int64_t k, std::vector<int>& ids) {
  ids.resize(n);
  std::iota(ids.begin(), ids.end(), 0);
  const auto before = [&](int a, int b) {
    const bool nan_a = x[a] != x[a], nan_b = x[b] != x[b];
    if (nan_a || nan_b) return nan_a && (!nan_b || a < b);
    return x[a] != x[b] ? x[a] > x[b] : a < b;
  };
  if (k < n) std::nth_element(ids.begin(), ids.begin() + k, ids.end(), before);
  ids.resize(std::min(k, n));
  std::sort(ids.begin(), ids.end(), before);
}

template <class T>
struct Row {
  const T *s, *z;
  int64_t num_columns, target;
  T weight;
  T* grad;
};

template <class T>
SATIN_INLINE T cross_entropy(const LogitLosses& losses, const Row<T>& row) {
  const T* s = row.s;
  T* grad = row.grad;
  const LogSum<T> all(s, row.num_columns, T(1));
  const T scale = row.weight * static_cast<T>(losses.cross_entropy);
  const T log_sigma = all.log_share(s[row.target]), before = grad[row.target];
  for (int64_t i = 0; i < row.num_columns; ++i) grad[i] += scale * exp_of(all.log_share(s[i]));
  grad[row.target] = before + scale * std::expm1(log_sigma);
  return -log_sigma;
}

template <class T>
SATIN_INLINE T distillation(const LogitLosses& losses, const Row<T>& row) {
  const DivergenceTerm<T> term(losses);
  const T *s = row.s, *z = row.z;
  const T temperature = static_cast<T>(losses.temperature);
  const LogSum<T> all_s(s, row.num_columns, T(1) / temperature), all_z(z, row.num_columns, T(1) / temperature);
  const auto log_p = [&](int64_t i) { return all_z.log_share(z[i]); };
  const auto log_q = [&](int64_t i) { return all_s.log_share(s[i]); };
  T forward = 0, reverse = 0;
  if (term.forward)
    forward = sum_of<T>(row.num_columns, [&](int64_t i) {
      const T lp = log_p(i);
      return term.forward_value(exp_of(lp), lp, log_q(i));
    });
  if (term.reverse)
    reverse = sum_of<T>(row.num_columns, [&](int64_t i) {
      const T lq = log_q(i);
      return times_log(exp_of(lq), term.log_ratio(log_p(i), lq));
    });
  const T scale = row.weight * static_cast<T>(losses.distillation) * temperature;
  T* grad = row.grad;
  for (int64_t i = 0; i < row.num_columns; ++i) {
    const T lp = log_p(i), lq = log_q(i);
    grad[i] += scale * term.slope(exp_of(lp), exp_of(lq), lp, lq, reverse);
  }
  return temperature * temperature * (times_log(term.share, forward) + times_log(T(1) - term.share, reverse));
}

/// Scratch memory of a thread.
template <class T>
struct Scratch {
  std::vector<int> ids;
  std::vector<T> rest, z, s;
};

template <class T>
SATIN_INLINE Masses<T> masses(const LogSum<T>& inside, const LogSum<T>& outside) {
  const T origin = std::max(inside.top, outside.top);
  return Masses<T>(inside.from(origin), outside.from(origin));
}

/// The smoothness loss at temperature tau with K = ids, whose teacher logits are in scratch.z; adds its gradient.
template <class T>
SATIN_INLINE T bucketed(T weight, T tau, const Masses<T>& teacher, const Row<T>& row, Scratch<T>& scratch) {
  const int64_t V = row.num_columns;
  const auto k = static_cast<int64_t>(scratch.ids.size());
  const int* ids = scratch.ids.data();
  T *rest = scratch.rest.data(), *z = scratch.z.data(), *s = scratch.s.data(), *grad = row.grad;
  std::copy_n(row.s, V, rest);
  for (int64_t j = 0; j < k; ++j) {
    s[j] = row.s[ids[j]];
    rest[ids[j]] = kNegativeInfinity<T>;
  }
  const LogSum<T> inside(s, k, T(1)), outside(rest, V, T(1)), all_p(z, k, T(1) / tau), all_q(s, k, T(1) / tau);
  const BucketLoss<T> bucket(teacher, masses(inside, outside));
  const T shift = bucket.excess(), scale = row.weight * weight;
  if (!outside.empty())  // else it has no softmax
    for (int64_t i = 0; i < V; ++i) grad[i] -= scale * shift * exp_of(outside.log_share(rest[i]));
  T inner = 0;
  for (int64_t j = 0; j < k; ++j) {
    const T log_p = all_p.log_share(z[j]), log_q = all_q.log_share(s[j]), p = exp_of(log_p), q = exp_of(log_q);
    inner += times_log(p, log_p - log_q);
    grad[ids[j]] += scale * (teacher.inside * tau * (q - p) + shift * exp_of(inside.log_share(s[j])));
  }
  return teacher.inside * tau * tau * inner + bucket.value();
}

template <class T>
SATIN_INLINE T smoothness(const LogitLosses& losses, const Row<T>& row, Scratch<T>& scratch) {
  const int64_t V = row.num_columns, num_tokens = losses.num_tokens > 0 ? losses.num_tokens : V;
  std::vector<int>& ids = scratch.ids;
  find_top_k(row.z, num_tokens, losses.top_k, ids);
  while (!ids.empty() && row.z[ids.back()] == kNegativeInfinity<T>) ids.pop_back();
  scratch.z.resize(ids.size());
  scratch.s.resize(ids.size());
  scratch.rest.assign(row.z, row.z + V);
  for (size_t j = 0; j < ids.size(); ++j) {
    scratch.z[j] = row.z[ids[j]];
    scratch.rest[ids[j]] = kNegativeInfinity<T>;
  }
  const auto k = static_cast<int64_t>(ids.size());
  const Masses<T> teacher = masses(LogSum<T>(scratch.z.data(), k, T(1)), LogSum<T>(scratch.rest.data(), V, T(1)));
  return bucketed(static_cast<T>(losses.smoothness), static_cast<T>(losses.smoothness_temperature), teacher, row,
                  scratch);
}

/// Row n, its outputs zero. False when it has no weight.
template <class T>
SATIN_INLINE bool start_row(Extent extent, int64_t n, const T* student, const T* teacher, const T* weights, T* grad,
                            T* values, Row<T>& row) {
  const int64_t V = extent.num_columns;
  row = {student + n * V, teacher ? teacher + n * V : nullptr, V, 0, weights[n], grad + n * V};
  std::fill_n(row.grad, V, T(0));
  for (int64_t i = 0; i < kNumLogitLosses; ++i) values[i * extent.num_rows + n] = 0;
  return row.weight != 0;
}

template <class T>
SATIN_INLINE void rows(const LogitLosses* losses, Extent extent, int64_t row_begin, int64_t row_end, const T* student,
                       const T* teacher, const int64_t* targets, const T* weights, T* grad, T* values) {
  const int64_t N = extent.num_rows;
  Scratch<T> scratch;
  for (int64_t n = row_begin; n < row_end; ++n) {
    Row<T> row;
    if (!start_row(extent, n, student, teacher, weights, grad, values, row)) continue;
    if (losses->cross_entropy != 0) {
      row.target = targets[n];
      values[n] = row.weight * cross_entropy(*losses, row);
    }
    if (losses->distillation != 0) values[N + n] = row.weight * distillation(*losses, row);
    if (losses->smoothness != 0) values[2 * N + n] = row.weight * smoothness(*losses, row, scratch);
  }
}

template <class T>
SATIN_INLINE void stored_rows(const LogitLosses* losses, Extent extent, int64_t row_begin, int64_t row_end,
                              const T* student, const StoredTopK* stored, const int64_t* targets, const T* weights,
                              T* grad, T* values) {
  const int64_t N = extent.num_rows, k = stored->k;
  const T* logits = static_cast<const T*>(stored->logits);
  Scratch<T> scratch;
  scratch.rest.resize(extent.num_columns);
  for (int64_t n = row_begin; n < row_end; ++n) {
    Row<T> row;
    if (!start_row<T>(extent, n, student, nullptr, weights, grad, values, row)) continue;
    if (losses->cross_entropy != 0) {
      row.target = targets[n];
      values[n] = row.weight * cross_entropy(*losses, row);
    }
    scratch.ids.clear();
    scratch.z.clear();
    for (int64_t j = 0; j < k; ++j) {
      if (logits[n * k + j] == kNegativeInfinity<T>) continue;
      scratch.ids.push_back(stored->ids[n * k + j]);
      scratch.z.push_back(logits[n * k + j]);
    }
    scratch.s.resize(scratch.ids.size());
    const Masses<T> teacher = Masses<T>::of_logarithms(static_cast<const T*>(stored->log_mass)[n],
                                                       static_cast<const T*>(stored->log_rest)[n]);
    if (losses->distillation != 0)
      values[N + n] = row.weight * bucketed(static_cast<T>(losses->distillation), T(1), teacher, row, scratch);
    if (losses->smoothness != 0)
      values[2 * N + n] = row.weight * bucketed(static_cast<T>(losses->smoothness),
                                                static_cast<T>(losses->smoothness_temperature), teacher, row, scratch);
  }
}

void require(bool condition, const char* expected) {
  if (!condition) throw std::invalid_argument(std::string("logit_losses: ") + expected);
}

}  // namespace

void check(const LogitLosses& losses, int64_t num_columns) {
  require(losses.temperature > 0 && losses.smoothness_temperature > 0, "temperatures are above 0");
  require(losses.share >= 0 && losses.share <= 1, "share is a fraction");
  require(losses.divergence == Divergence::kMixture || (losses.share > 0 && losses.share < 1),
          "the mean of Jensen-Shannon has a share of both sides");
  require(losses.top_k >= 1, "top_k is at least 1");
  require(losses.num_tokens >= 0 && losses.num_tokens <= num_columns, "num_tokens is at most the vocabulary");
}

void check_stored(const LogitLosses& losses, int64_t num_columns) {
  check(losses, num_columns);
  require(losses.distillation == 0 ||
              (losses.temperature == 1 && losses.divergence == Divergence::kMixture && losses.share == 1),
          "a stored top k gives the forward KL at temperature 1 alone");
}

template <class T>
void logit_losses_cpu(const LogitLosses& losses, Extent extent, int64_t row_begin, int64_t row_end, const T* student,
                      const T* teacher, const int64_t* targets, const T* weights, T* grad, T* values) {
  check(losses, extent.num_columns);
  run_widest<rows<T>>(&losses, extent, row_begin, row_end, student, teacher, targets, weights, grad, values);
}
template void logit_losses_cpu(const LogitLosses&, Extent, int64_t, int64_t, const float*, const float*, const int64_t*,
                               const float*, float*, float*);
template void logit_losses_cpu(const LogitLosses&, Extent, int64_t, int64_t, const double*, const double*,
                               const int64_t*, const double*, double*, double*);

template <class T>
void stored_losses_cpu(const LogitLosses& losses, Extent extent, int64_t row_begin, int64_t row_end, const T* student,
                       const StoredTopK& teacher, const int64_t* targets, const T* weights, T* grad, T* values) {
  check_stored(losses, extent.num_columns);
  run_widest<stored_rows<T>>(&losses, extent, row_begin, row_end, student, &teacher, targets, weights, grad, values);
}
template void stored_losses_cpu(const LogitLosses&, Extent, int64_t, int64_t, const float*, const StoredTopK&,
                                const int64_t*, const float*, float*, float*);
template void stored_losses_cpu(const LogitLosses&, Extent, int64_t, int64_t, const double*, const StoredTopK&,
                                const int64_t*, const double*, double*, double*);

template <class T>
void top_k_cpu(Extent extent, int64_t k, int64_t row_begin, int64_t row_end, const T* logits, T* values, int64_t* ids) {
  std::vector<int> found;
  for (int64_t n = row_begin; n < row_end; ++n) {
    const T* row = logits + n * extent.num_columns;
    find_top_k(row, extent.num_columns, k, found);
    for (int64_t j = 0; j < k; ++j) {
      ids[n * k + j] = found[j];
      values[n * k + j] = row[found[j]];
    }
  }
}
template void top_k_cpu(Extent, int64_t, int64_t, int64_t, const float*, float*, int64_t*);
template void top_k_cpu(Extent, int64_t, int64_t, int64_t, const double*, double*, int64_t*);

}  // namespace satin::kernels
