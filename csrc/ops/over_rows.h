// How CPU bindings run kernels: rows over torch's threads, in the arithmetic's scalar.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>

#include "kernels/fake_quant.h"

namespace satin::ops {

/// body(begin, end) over rows; a chunk has enough values to be worth a thread.
template <class Body>
void over_rows(const kernels::Extent& extent, const Body& body) {
  constexpr int64_t kValuesPerTask = 32768;
  at::parallel_for(0, extent.num_rows, std::max<int64_t>(1, kValuesPerTask / std::max<int64_t>(1, extent.num_columns)),
                   body);
}

/// body(T{}) with the arithmetic's scalar.
template <class Body>
void for_scalar(at::ScalarType dtype, const Body& body) {
  dtype == at::kDouble ? body(double{}) : body(float{});
}

}  // namespace satin::ops
