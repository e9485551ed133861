// Losses against a teacher of whom only the top k is stored (logit_losses.h): one block a row. The first pass takes the
// sums outside of K, the second writes the gradient; K, known beforehand, is left out of both by a bitmap.
#include "kernels/cuda/log_sum.cuh"

namespace satin::kernels {
namespace {

template <class S>
struct StoredOptions {
  S cross_entropy, distillation, smoothness, tau;
};

struct StoredRows {
  const void* student;
  StoredTopK teacher;
  const int64_t* targets;
  const void* weights;
  void *grad, *values;
  int64_t num_rows;
  int num_columns;
};

template <class S, class O, int W>
__global__ void __launch_bounds__(kThreads, 4) stored_losses_kernel(const StoredOptions<S> o, const StoredRows rows) {
  constexpr int kTile = kThreads * W;
  const int64_t row = blockIdx.x;
  const int V = rows.num_columns, first = static_cast<int>(threadIdx.x) * W, k = static_cast<int>(rows.teacher.k);
  const S* __restrict__ student = static_cast<const S*>(rows.student) + row * V;
  O* grad = static_cast<O*>(rows.grad) + row * V;
  S* values = static_cast<S*>(rows.values) + row;
  const S weight = static_cast<const S*>(rows.weights)[row];
  if (weight == S(0)) return write_zeros<W>(grad, V, values, rows.num_rows);
  __shared__ unsigned in_top[kMaxStoredVocabulary / 32];
  __shared__ S z[kMaxTopK], s[kMaxTopK];
  __shared__ int id[kMaxTopK];
  for (int i = threadIdx.x; i < (V + 31) / 32; i += kThreads) in_top[i] = 0;
  __syncthreads();
  for (int j = threadIdx.x; j < k; j += kThreads) {
    z[j] = static_cast<const S*>(rows.teacher.logits)[row * k + j];
    id[j] = rows.teacher.ids[row * k + j];
    s[j] = z[j] == kNegativeInfinity<S> ? z[j] : student[id[j]];
    if (z[j] != kNegativeInfinity<S>) atomicOr(&in_top[id[j] / 32], 1u << id[j] % 32);
  }
  __syncthreads();

  LogSum<S> rest_s, top_s, soft_p, soft_q, sharp_p;
#pragma unroll 2
  for (int i = first; i < V; i += kTile) {
    const Pack<S, W> pack = load_pack<W>(student + i);
    S x[W];
#pragma unroll
    for (int j = 0; j < W; ++j) x[j] = in_top[(i + j) / 32] >> (i + j) % 32 & 1 ? kNegativeInfinity<S> : pack.values[j];
    rest_s.add(x, S(1));
  }
  const S warm = S(1) / o.tau;
  for (int j = threadIdx.x; j < k; j += kThreads) {
    top_s.add(s[j], S(1));
    sharp_p.add(z[j], S(1));
    soft_p.add(z[j], warm);
    if (z[j] != kNegativeInfinity<S>) soft_q.add(s[j], warm);
  }
  rest_s = merged(rest_s, S(1));
  top_s = merged(top_s, S(1));
  LogSum<S> all_s = rest_s;
  all_s.merge(top_s, S(1));
  const LogTotal<S> sigma(all_s, S(1)), rest(rest_s, S(1)), inside(top_s, S(1));
  const LogTotal<S> p_sharp(merged(sharp_p, S(1)), S(1));
  const LogTotal<S> p_soft(merged(soft_p, warm), warm), q_soft(merged(soft_q, warm), warm);
  const Masses<S> teacher = Masses<S>::of_logarithms(static_cast<const S*>(rows.teacher.log_mass)[row],
                                                     static_cast<const S*>(rows.teacher.log_rest)[row]);
  const BucketLoss<S> bucket(teacher, Masses<S>(inside.from(all_s.top), rest.from(all_s.top)));
  const S shift = bucket.excess(), tail = (o.distillation + o.smoothness) * shift;

  const int target = o.cross_entropy != S(0) ? static_cast<int>(rows.targets[row]) : -1;
  const auto cross_entropy_slope = [&](S x, int i) {
    if (o.cross_entropy == S(0)) return S(0);
    const S log_sigma = sigma.log_share(x);
    return o.cross_entropy * (i == target ? std::expm1(log_sigma) : exp_of(log_sigma));
  };
#pragma unroll 2
  for (int i = first; i < V; i += kTile) {
    const Pack<S, W> pack = load_pack<W>(student + i);
    Pack<O, W> result;
#pragma unroll
    for (int j = 0; j < W; ++j) {
      S d = cross_entropy_slope(pack.values[j], i + j);
      if (!rest.empty()) d -= tail * exp_of(rest.log_share(pack.values[j]));
      result.values[j] = store_as<O>(weight * d);
    }
    store_pack<W>(grad + i, result);
  }
  __syncthreads();  // what the loop wrote for K is replaced
  S sharp = 0, soft = 0;
  for (int j = threadIdx.x; j < k; j += kThreads) {
    if (z[j] == kNegativeInfinity<S>) continue;
    const S log_sharp_p = p_sharp.log_share(z[j]), log_sharp_q = inside.log_share(s[j]);
    const S log_soft_p = p_soft.log_share(z[j]), log_soft_q = q_soft.log_share(s[j]);
    const S p = exp_of(log_sharp_p), q = exp_of(log_sharp_q), soft_p = exp_of(log_soft_p), soft_q = exp_of(log_soft_q);
    sharp += times_log(p, log_sharp_p - log_sharp_q);
    soft += times_log(soft_p, log_soft_p - log_soft_q);
    const S d = cross_entropy_slope(s[j], id[j]) + tail * q + o.distillation * teacher.inside * (q - p) +
                o.smoothness * teacher.inside * o.tau * (soft_q - soft_p);
    grad[id[j]] = store_as<O>(weight * d);
  }
  sharp = total(sharp);
  soft = total(soft);
  if (threadIdx.x != 0) return;
  values[0] = target < 0 ? S(0) : weight * -sigma.log_share(student[target]);
  values[rows.num_rows] = o.distillation == S(0) ? S(0) : weight * (teacher.inside * sharp + bucket.value());
  values[2 * rows.num_rows] =
      o.smoothness == S(0) ? S(0) : weight * (teacher.inside * o.tau * o.tau * soft + bucket.value());
}

template <class S, class O, int W>
void launch(const LogitLosses& losses, const StoredRows& rows, CUstream_st* stream) {
  const StoredOptions<S> options{static_cast<S>(losses.cross_entropy), static_cast<S>(losses.distillation),
                                 static_cast<S>(losses.smoothness), static_cast<S>(losses.smoothness_temperature)};
  launch_kernel(stored_losses_kernel<S, O, W>, static_cast<unsigned>(rows.num_rows), stream, options, rows);
}
}  // namespace

void stored_losses_cuda(const LogitLosses& losses, Extent extent, Dtype logits_dtype, const void* student,
                        const StoredTopK& teacher, const int64_t* targets, const void* weights, Dtype grad_dtype,
                        void* grad, void* values, CUstream_st* stream) {
  check_stored(losses, extent.num_columns);
  if (teacher.k > kMaxTopK || extent.num_columns > kMaxStoredVocabulary || extent.num_rows > 0x7fffffff)
    throw std::invalid_argument("stored_losses_cuda: at most " + std::to_string(kMaxTopK) +
                                " stored of a vocabulary of " + std::to_string(kMaxStoredVocabulary));
  if (extent.num_rows == 0) return;
  const StoredRows rows{student, teacher, targets,         weights,
                        grad,    values,  extent.num_rows, static_cast<int>(extent.num_columns)};
  for_logits("stored_losses_cuda", logits_dtype, grad_dtype, extent.num_columns, {student, grad},
             [&]<class S, class O, int W>() { launch<S, O, W>(losses, rows, stream); });
  check_launch("stored_losses_cuda");
}

}  // namespace satin::kernels
