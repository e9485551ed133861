// CPU kernel of adamw.h.
#include "kernels/adamw.h"

#include "kernels/adamw_math.h"
#include "kernels/cpu/dispatch.h"

namespace satin::kernels {
namespace {

template <class T>
SATIN_INLINE void update_loop(int64_t n, AdamWStep<T> step, T* __restrict w, const T* __restrict gradient,
                              T* __restrict mean, T* __restrict square) {
  for (int64_t i = 0; i < n; ++i) step.update(w[i], gradient[i], mean[i], square[i]);
}

}  // namespace

template <class T>
void adamw_cpu(int64_t begin, int64_t end, const AdamWBetas& betas, const AdamWTask<T>& task) {
  run_widest<update_loop<T>>(end - begin, AdamWStep<T>(betas, task), task.w + begin, task.gradient + begin,
                             task.mean + begin, task.square + begin);
}

template void adamw_cpu(int64_t, int64_t, const AdamWBetas&, const AdamWTask<float>&);
template void adamw_cpu(int64_t, int64_t, const AdamWBetas&, const AdamWTask<double>&);

}  // namespace satin::kernels
