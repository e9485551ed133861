// Losses and gradient of logit_losses.h: one block a row. The first pass takes the sums of exponentials and, for the
// smoothness loss, the teacher's top k; the last writes the gradient. Reverse divergences take a pass between them.
#include "kernels/cuda/log_sum.cuh"
#include "kernels/cuda/row_top_k.cuh"

namespace satin::kernels {
namespace {

/// LogitLosses in the arithmetic's scalar.
template <class S>
struct Options {
  S cross_entropy, distillation, temperature, smoothness, tau;
  DivergenceTerm<S> term;
  int top_k, num_tokens;
  bool tempered;  ///< the distillation has sums of its own

  Options(const LogitLosses& losses, int64_t num_columns)
      : cross_entropy(static_cast<S>(losses.cross_entropy)),
        distillation(static_cast<S>(losses.distillation)),
        temperature(static_cast<S>(losses.temperature)),
        smoothness(static_cast<S>(losses.smoothness)),
        tau(static_cast<S>(losses.smoothness_temperature)),
        term(losses),
        top_k(static_cast<int>(std::min<int64_t>(losses.top_k, num_columns))),
        num_tokens(static_cast<int>(losses.num_tokens > 0 ? losses.num_tokens : num_columns)),
        tempered(losses.distillation != 0 && losses.temperature != 1) {}
};

struct LogitRows {
  const void *student, *teacher;
  const int64_t* targets;
  const void* weights;
  void *grad, *values;
  int64_t num_rows;
  int num_columns;
};

/// W: neighbouring logits that a thread takes at a time. kPlain: the distillation is the forward KL at temperature 1.
template <class S, class O, int W, bool kTeacher, bool kTopK, bool kPlain>
__global__ void __launch_bounds__(kThreads, 4) logit_losses_kernel(const Options<S> o, const LogitRows rows) {
  constexpr int kTile = kThreads * W;
  const int64_t row = blockIdx.x;
  const int V = rows.num_columns, lane = static_cast<int>(threadIdx.x) * W;
  const S* __restrict__ student = static_cast<const S*>(rows.student) + row * V;
  const S* __restrict__ teacher = kTeacher ? static_cast<const S*>(rows.teacher) + row * V : nullptr;
  O* grad = static_cast<O*>(rows.grad) + row * V;
  S* values = static_cast<S*>(rows.values) + row;
  const S weight = static_cast<const S*>(rows.weights)[row];
  if (weight == S(0)) return write_zeros<W>(grad, V, values, rows.num_rows);
  const auto load = [&](int i, S(&s)[W], S(&z)[W]) {
    if (i < V) {
      const Pack<S, W> from = load_pack<W>(student + i);
#pragma unroll
      for (int j = 0; j < W; ++j) s[j] = from.values[j];
      if constexpr (kTeacher) {
        const Pack<S, W> other = load_pack<W>(teacher + i);
#pragma unroll
        for (int j = 0; j < W; ++j) z[j] = other.values[j];
      }
    } else {
#pragma unroll
      for (int j = 0; j < W; ++j) s[j] = z[j] = kNegativeInfinity<S>;
    }
  };

  // Sums over everything but the top k (if there is one), at temperature 1 and at the distillation's.
  const S cool = S(1) / o.temperature;
  const bool tempered = !kPlain && kTeacher && o.tempered;
  LogSum<S> rest_s, rest_z, tempered_s, tempered_z;
  __shared__ typename RowTopK<S, kTopK ? W : 1>::Storage storage;
  RowTopK<S, kTopK ? W : 1> best(storage, o.top_k, /*exclude_infinity=*/true);
  const auto dropped = [&](S z, S s) {
    rest_s.add(s, S(1));
    rest_z.add(z, S(1));
  };
  {
    S s[W], z[W], next_s[W], next_z[W];
    load(lane, next_s, next_z);
    for (int begin = 0; begin < V; begin += kTile) {
#pragma unroll
      for (int j = 0; j < W; ++j) {
        s[j] = next_s[j];
        z[j] = next_z[j];
      }
      load(begin + kTile + lane, next_s, next_z);
      if (tempered) {
        tempered_s.add(s, cool);
        tempered_z.add(z, cool);
      }
      if constexpr (kTopK) best.offer(z, s, begin + lane, o.num_tokens, dropped);
      rest_s.add(s, S(1));
      if constexpr (kTeacher) rest_z.add(z, S(1));
    }
  }
  if constexpr (kTopK) best.finish(dropped);
  rest_s = merged(rest_s, S(1));
  if constexpr (kTeacher) rest_z = merged(rest_z, S(1));

  LogSum<S> all_s = rest_s, all_z = rest_z;
  const S warm = S(1) / o.tau;
  LogSum<S> top_s, top_z, top_p, top_q;
  S shift = 0, pull = 0, smoothness_value = 0;  // Q - P and P tau
  if constexpr (kTopK) {
    for (int i = threadIdx.x; i < best.size(); i += kThreads) {
      top_s.add(best.s(i), S(1));
      top_z.add(best.z(i), S(1));
      top_q.add(best.s(i), warm);
      top_p.add(best.z(i), warm);
    }
    top_s = merged(top_s, S(1));
    top_z = merged(top_z, S(1));
    top_q = merged(top_q, warm);
    top_p = merged(top_p, warm);
    all_s.merge(top_s, S(1));
    all_z.merge(top_z, S(1));
    const auto masses = [&](const LogSum<S>& inside, const LogSum<S>& outside, S origin) {
      return Masses<S>(LogTotal<S>(inside, S(1)).from(origin), LogTotal<S>(outside, S(1)).from(origin));
    };
    const BucketLoss<S> bucket(masses(top_z, rest_z, all_z.top), masses(top_s, rest_s, all_s.top));
    const LogTotal<S> total_p(top_p, warm), total_q(top_q, warm);
    S inner = 0;
    for (int i = threadIdx.x; i < best.size(); i += kThreads) {
      const S log_p = total_p.log_share(best.z(i));
      inner += times_log(exp_of(log_p), log_p - total_q.log_share(best.s(i)));
    }
    shift = bucket.excess();
    pull = bucket.teacher.inside * o.tau;
    smoothness_value = pull * o.tau * total(inner) + bucket.value();
  }
  const LogTotal<S> sigma(all_s, S(1)), rest(rest_s, S(1));
  LogTotal<S> student_q = sigma, teacher_p(all_z, S(1));  // of the distillation
  if (tempered) {
    student_q = LogTotal<S>(merged(tempered_s, cool), cool);
    teacher_p = LogTotal<S>(merged(tempered_z, cool), cool);
  }

  S reverse_sum = 0;
  if (!kPlain && kTeacher && o.distillation != S(0) && o.term.reverse) {
    for (int i = lane; i < V; i += kTile) {
      S s[W], z[W];
      load(i, s, z);
#pragma unroll
      for (int j = 0; j < W; ++j) {
        const S log_q = student_q.log_share(s[j]);
        reverse_sum += times_log(exp_of(log_q), o.term.log_ratio(teacher_p.log_share(z[j]), log_q));
      }
    }
    reverse_sum = total(reverse_sum);
  }

  const int target = o.cross_entropy != S(0) ? static_cast<int>(rows.targets[row]) : -1;
  S forward_sum = 0, share_of_all = 0;  // the latter: of the logit that slope() saw last
  // Of cross-entropy and distillation, which do not know the top k.
  const auto slope = [&](S s, S z, bool is_target, bool with_value) {
    const S log_sigma = sigma.log_share(s);
    share_of_all = exp_of(log_sigma);
    S result = o.cross_entropy * (is_target ? std::expm1(log_sigma) : share_of_all);
    if constexpr (kPlain) {
      const S log_p = teacher_p.log_share(z), p = exp_of(log_p);
      result += o.distillation * (share_of_all - p);
      if (with_value) forward_sum += times_log(p, log_p - log_sigma);
    } else if (kTeacher && o.distillation != S(0)) {
      const S log_p = teacher_p.log_share(z), log_q = student_q.log_share(s), p = exp_of(log_p);
      const S q = tempered ? exp_of(log_q) : share_of_all;
      result += o.distillation * o.temperature * o.term.slope(p, q, log_p, log_q, reverse_sum);
      if (with_value) forward_sum += o.term.forward_value(p, log_p, log_q);
    }
    return result;
  };
  // A logit's share of the rest is its share of all over the rest's, unless that loses what is tiny.
  const S log_rest_share = rest.from(sigma.top) - sigma.log;
  const bool rest_is_large = log_rest_share > S(-20);
  const S rest_weight = o.smoothness * shift * (rest_is_large ? exp_of(-log_rest_share) : S(1));
  const auto slope_outside = [&](S s, S z, bool is_target, bool with_value) {
    S d = slope(s, z, is_target, with_value);
    if (kTopK && !rest.empty()) d -= rest_weight * (rest_is_large ? share_of_all : exp_of(rest.log_share(s)));
    return d;
  };
#pragma unroll 2
  for (int i = lane; i < V; i += kTile) {
    S s[W], z[W];
    load(i, s, z);
    Pack<O, W> result;
#pragma unroll
    for (int j = 0; j < W; ++j) result.values[j] = store_as<O>(weight * slope_outside(s[j], z[j], false, true));
    store_pack<W>(grad + i, result);
  }
  // What the loop wrote for the target and for the top k is replaced, in this order.
  __syncthreads();
  if (target >= 0 && threadIdx.x == 0)
    grad[target] = store_as<O>(weight * slope_outside(student[target], kTeacher ? teacher[target] : S(0), true, false));
  if constexpr (kTopK) {
    __syncthreads();
    const LogTotal<S> inside(top_s, S(1)), total_p(top_p, warm), total_q(top_q, warm);
    for (int i = threadIdx.x; i < best.size(); i += kThreads) {
      const S s = best.s(i), z = best.z(i);
      const S p = exp_of(total_p.log_share(z)), q = exp_of(total_q.log_share(s));
      const S d = slope(s, z, best.id(i) == target, false) +
                  o.smoothness * (pull * (q - p) + shift * exp_of(inside.log_share(s)));
      grad[best.id(i)] = store_as<O>(weight * d);
    }
  }

  if constexpr (kTeacher) forward_sum = total(forward_sum);
  if (threadIdx.x != 0) return;
  const S share = o.term.share;
  values[0] = target < 0 ? S(0) : weight * -sigma.log_share(student[target]);
  values[rows.num_rows] = !kTeacher || o.distillation == S(0)
                              ? S(0)
                              : weight * o.temperature * o.temperature *
                                    (times_log(share, forward_sum) + times_log(S(1) - share, reverse_sum));
  values[2 * rows.num_rows] = kTopK ? weight * smoothness_value : S(0);
}

template <class S, class O, int W>
void launch(const LogitLosses& losses, const LogitRows& rows, CUstream_st* stream) {
  const Options<S> options(losses, rows.num_columns);
  const auto blocks = static_cast<unsigned>(rows.num_rows);
  const auto run = [&](auto teacher, auto top_k, auto plain) {
    launch_kernel(logit_losses_kernel<S, O, W, teacher, top_k, plain>, blocks, stream, options, rows);
  };
  const std::true_type yes;
  const std::false_type no;
  if (!losses.needs_teacher()) return run(no, no, no);
  // In the training step's types a kernel of its own: a third of the instructions.
  if constexpr (std::is_same_v<S, float> && W > 1)
    if (losses.distillation == 0 || (!options.tempered && !options.term.reverse && !options.term.jensen_shannon))
      return losses.smoothness != 0 ? run(yes, yes, yes) : run(yes, no, yes);
  losses.smoothness != 0 ? run(yes, yes, no) : run(yes, no, no);
}

}  // namespace

void logit_losses_cuda(const LogitLosses& losses, Extent extent, Dtype logits_dtype, const void* student,
                       const void* teacher, const int64_t* targets, const void* weights, Dtype grad_dtype, void* grad,
                       void* values, CUstream_st* stream) {
  check(losses, extent.num_columns);
  if (losses.smoothness != 0 && losses.top_k > kMaxTopK)
    throw std::invalid_argument("logit_losses_cuda: top_k is at most " + std::to_string(kMaxTopK));
  if (extent.num_columns > 0x7fffffff - 4096 || extent.num_rows > 0x7fffffff)
    throw std::invalid_argument("logit_losses_cuda: more than 2^31 rows or columns");
  if (extent.num_rows == 0) return;
  const LogitRows rows{student, teacher, targets,         weights,
                       grad,    values,  extent.num_rows, static_cast<int>(extent.num_columns)};
  for_logits("logit_losses_cuda", logits_dtype, grad_dtype, extent.num_columns, {student, teacher, grad},
             [&]<class S, class O, int W>() { launch<S, O, W>(losses, rows, stream); });
  check_launch("logit_losses_cuda");
}

}  // namespace satin::kernels
