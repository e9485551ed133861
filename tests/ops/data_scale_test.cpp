// Scales read off the data against the formulas in fp64.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ops/fake_quant_cases.h"

namespace satin::test {
namespace {
using ops::Grid;

void check(const ops::FakeQuantBatch& batch) {
  const ops::DataScales found = ops::data_scale_many(batch);
  const double top = (1 << batch.grid.bits) - 1;
  for (size_t i = 0; i < batch.weights.size(); ++i) {
    const at::Tensor w =
        batch.weights[i].cpu().to(at::kDouble).view({batch.weights[i].size(0), -1, batch.group_sizes[i]});
    const at::Tensor low = w.amin(-1).clamp_max(0), high = w.amax(-1).clamp_min(0), largest = at::maximum(-low, high);
    const at::Tensor scale = found.scales[i].cpu().to(at::kDouble);
    at::Tensor expected;
    switch (batch.grid.kind) {
      case Grid::kSymmetric:
        expected = largest / (top / 2);
        break;
      case Grid::kAsymmetric: {
        expected = ((high - low) / top).to(at::kFloat).clamp_min(1e-5).to(at::kBFloat16).to(at::kDouble);
        const at::Tensor zero = at::clamp(at::round((-low / expected).to(found.scales[i].scalar_type())), 0, top);
        EXPECT_TRUE(at::equal(found.zero_points[i].cpu().to(at::kDouble), zero.to(at::kDouble))) << i;
        break;
      }
      case Grid::kSeq:
      case Grid::kTernary:
        expected = largest;
        break;
      default:
        expected = w.abs().mean(-1);
    }
    EXPECT_LE((scale - expected).abs().max().item<double>(), 1e-7 * expected.max().item<double>()) << i;
  }
}

TEST(DataScale, IsTheFormula) {
  for (const auto& [kind, bits] : data_scale_grids())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(kind) << " " << bits << " " << toString(dtype));
      check(make_data_scale_batch(kind, bits, dtype));
    }
}

TEST(DataScale, DamagedGroupsAreNaN) {
  for (const auto& [kind, bits] : data_scale_grids())
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
      at::Tensor w = at::randn({2, 128});
      w[1][70] = bad;
      ops::FakeQuantBatch batch{{kind, bits, 64}, {w}, {}, {}, {64}};
      const at::Tensor nan = ops::data_scale_many(batch).scales[0].isnan();
      EXPECT_EQ(nan.sum().item<int>(), 1);
      EXPECT_TRUE(nan[1][1].item<bool>());
    }
}

}  // namespace
}  // namespace satin::test
