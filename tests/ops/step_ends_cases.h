// The ends of a step of text on every device.
#pragma once
#include <cmath>
#include <limits>

#include "ops/decode_cases.h"
#include "ops/step_ends.h"

namespace satin::ops {

inline void expect_step_begins(at::Device device, at::ScalarType dtype) {
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  for (const int bits : {1, 2, 3, 4, 8})
    for (const int64_t columns : {64, 200, 2048})
      for (const at::ScalarType of_weight : {at::kFloat, at::kBFloat16}) {
        SCOPED_TRACE(testing::Message() << bits << " bits, " << columns << " columns, " << dtype << ", " << of_weight);
        PackedWeight weight = random_packed(90, columns, columns % 128 == 0 ? columns / 128 : 1, bits, true);
        weight.dequant_dtype = of_weight;
        const at::Tensor tokens = at::tensor({89, 0, 17, 17, 3, 42, 64, 1, 88}, at::kLong),
                         all = dequantize_rows(weight, 0, 90, wide);
        at::Tensor positions = at::arange(9, at::kLong).to(device);
        const at::Tensor x = begin_step(weight.to(device), tokens.to(device), positions, dtype);
        EXPECT_EQ(x.scalar_type(), wide);
        EXPECT_TRUE(x.cpu().equal(all.index_select(0, tokens).to(dtype).to(wide)));
        EXPECT_TRUE(positions.cpu().equal(at::arange(1, 10, at::kLong)));
      }
}

inline void expect_most_likely(at::Device device) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const int64_t columns : {1, 3, 31, 32, 1000, 1001, 32768, 128256, 400003}) {
    at::Tensor wide = at::randn({8, columns + 5});
    at::Tensor logits = wide.narrow(1, 0, columns);  // rows further apart than they are long
    const int64_t last = columns - 1, middle = columns / 2;
    logits[1].fill_(-infinity);
    logits[2].fill_(-2).index_put_({at::tensor({middle, last})}, at::tensor({-1.f}));  // two of them
    logits[3].fill_(-0.f).index_put_({at::tensor({last})}, at::tensor({0.f}));         // equal numbers
    logits[4].index_put_({at::tensor({middle})}, at::tensor({infinity}));
    logits[5].index_put_({at::tensor({last})}, at::tensor({nan}));
    logits[6].index_put_({at::tensor({middle, last})}, at::tensor({-nan, infinity}));
    logits[7].index_put_({at::tensor({last})}, at::tensor({9.f}));
    std::vector<int64_t> expected;
    for (int64_t row = 0; row < logits.size(0); ++row) {
      const float* x = logits[row].const_data_ptr<float>();
      int64_t at = 0;
      for (int64_t i = 1; i < columns && !std::isnan(x[at]); ++i)
        if (std::isnan(x[i]) || x[i] > x[at]) at = i;
      expected.push_back(at);
    }
    const at::Tensor there = wide.to(device).narrow(1, 0, columns), expected_ids = at::tensor(expected, at::kLong);
    for (const at::Tensor& each : {there, there.contiguous(), there.to(at::kDouble)})
      EXPECT_TRUE(most_likely(each).cpu().equal(expected_ids)) << columns << " columns, " << each.strides();
  }
}

}  // namespace satin::ops
