// CPU kernel of add_rows.h.
#include "kernels/add_rows.h"

#include <algorithm>
#include <vector>

namespace satin::kernels {

template <class T>
void add_rows_cpu(int64_t begin, int64_t end, const AddRows<T>& call) {
  std::vector<T> sum(static_cast<size_t>(end - begin));
  for (int64_t first = 0, i = 0; first < call.num_rows; first = i) {
    std::fill(sum.begin(), sum.end(), T(0));
    for (; i < call.num_rows && call.ids[i] == call.ids[first]; ++i) {
      const T* const row = static_cast<const T*>(call.rows) + call.order[i] * call.width;
      for (int64_t h = begin; h < end; ++h) sum[static_cast<size_t>(h - begin)] += row[h];
    }
    T* const to = call.sums + call.ids[first] * call.width;
    for (int64_t h = begin; h < end; ++h) to[h] += sum[static_cast<size_t>(h - begin)];
  }
}

template void add_rows_cpu(int64_t, int64_t, const AddRows<float>&);
template void add_rows_cpu(int64_t, int64_t, const AddRows<double>&);

}  // namespace satin::kernels
