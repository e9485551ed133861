// CPU kernel of add_rows.h.
#include "kernels/add_rows.h"

#include <algorithm>
#include <vector>

namespace satin::kernels {

template <class T>
void add_rows_cpu(int64_t begin, int64_t end, const AddRows<T>& call) {
  const int64_t width = end - begin;
  std::vector<T> sums(static_cast<size_t>(kAddRowsParts * width));
  for (int64_t first = 0, i = 0; first < call.num_rows; first = i) {
    std::fill(sums.begin(), sums.end(), T(0));
    for (; i < call.num_rows && call.ids[i] == call.ids[first]; ++i) {
      const T* const row = static_cast<const T*>(call.rows) + call.order[i] * call.width + begin;
      T* const sum = sums.data() + (i - first) % kAddRowsParts * width;
      for (int64_t h = 0; h < width; ++h) sum[h] += row[h];
    }
    T* const to = call.sums + call.ids[first] * call.width + begin;
    for (int64_t h = 0; h < width; ++h) {
      T total = sums[static_cast<size_t>(h)];
      for (int64_t p = 1; p < kAddRowsParts; ++p) total += sums[static_cast<size_t>(p * width + h)];
      to[h] += total;
    }
  }
}

template void add_rows_cpu(int64_t, int64_t, const AddRows<float>&);
template void add_rows_cpu(int64_t, int64_t, const AddRows<double>&);

}  // namespace satin::kernels
