#include "ops/add_rows.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "core/error.h"
#include "kernels/add_rows.h"

namespace satin::ops {
namespace {

template <class T>
void on_cpu(const at::Tensor& sums, const at::Tensor& ids, const at::Tensor& order, const at::Tensor& rows) {
  const kernels::AddRows<T> call{ids.size(0),
                                 sums.size(1),
                                 ids.const_data_ptr<int64_t>(),
                                 order.const_data_ptr<int64_t>(),
                                 rows.const_data_ptr(),
                                 sums.mutable_data_ptr<T>()};
  constexpr int64_t kColumnsATask = 256;
  at::parallel_for(0, sums.size(1), kColumnsATask,
                   [&](int64_t begin, int64_t end) { kernels::add_rows_cpu(begin, end, call); });
}

}  // namespace

void add_rows(const at::Tensor& sums, const at::Tensor& ids, const at::Tensor& rows) {
  SATIN_CHECK(sums.dim() == 2 && rows.dim() == 2 && ids.dim() == 1 && rows.size(0) == ids.size(0) &&
                  rows.size(1) == sums.size(1) && ids.scalar_type() == at::kLong && sums.is_contiguous(),
              "rows ", rows.sizes(), " of ids ", ids.sizes(), " ", ids.scalar_type(), " into ", sums.sizes());
  SATIN_CHECK(sums.device() == ids.device() && sums.device() == rows.device(), "devices");
  const bool is_double = sums.scalar_type() == at::kDouble;
  if (!is_double && sums.scalar_type() != at::kFloat) {
    sums.index_put_({ids}, rows.to(sums.scalar_type()), /*accumulate=*/true);
    return;
  }
  const auto [sorted, order] = at::sort(ids, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const bool narrow = sums.is_cuda() && !is_double && rows.scalar_type() == at::kBFloat16;
  const at::Tensor values = (narrow ? rows : rows.to(sums.scalar_type())).contiguous();
  if (sums.is_cuda())
    add_rows_on_cuda(sums, sorted, order, values);
  else if (is_double)
    on_cpu<double>(sums, sorted, order, values);
  else
    on_cpu<float>(sums, sorted, order, values);
}

}  // namespace satin::ops
