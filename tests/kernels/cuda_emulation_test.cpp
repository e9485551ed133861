// The CUDA kernels' own code on the CPU (kernels/cuda/emulation.h) against the CPU kernels: batches of matrices with
// group sizes for every path (part of a warp, a warp's loop, a block's loop, unaligned tails), NaN and infinity among
// them. Whether the GPU agrees is tested in tests/ops, on a GPU.
#include <gtest/gtest.h>

#include <random>

#include "kernels/cuda/data_scale.cu"
#include "kernels/cuda/fake_quant.cu"
#include "kernels/cuda/fake_quant_backward.cu"
#include "kernels/cuda/fake_quant_codes.cu"
#include "kernels/emulated_grids.h"

namespace satin::kernels {
namespace {

/// bf16 values as both kinds of kernel take them.
struct Values {
  std::vector<float> wide;
  std::vector<__nv_bfloat16> narrow;
  void add(float x) {
    narrow.push_back(__float2bfloat16_rn(x));
    wide.push_back(__bfloat162float(narrow.back()));
  }
};

struct Matrix {
  int64_t rows, group, columns;
  Values w, grad;
  std::vector<float> scale, zero_point;

  Matrix(std::mt19937& random, GridCase grid, float size, int64_t rows, int64_t group, int64_t groups)
      : rows(rows), group(group), columns(group * groups) {
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<float> uniform;
    const bool integer = grid.kind == Grid::kSymmetric || grid.kind == Grid::kAsymmetric;
    const float levels = integer ? static_cast<float>(1 << grid.bits) / 2 : 1;
    for (int64_t i = 0; i < rows * columns; ++i) {
      w.add(i == 1 ? 0 : i == 2 ? NAN : i == 3 ? INFINITY : 0.02f * size * normal(random));
      grad.add(normal(random));
    }
    for (int64_t i = 0; i < rows * groups; ++i) {
      scale.push_back((uniform(random) + 0.1f) * 0.05f * size / levels);
      zero_point.push_back(uniform(random) * static_cast<float>((1 << grid.bits) + 2) - 1.5f);
    }
  }
  Extent extent() const { return {rows, columns}; }
};

std::vector<Matrix> matrices(GridCase grid, float size) {
  std::mt19937 random(1);
  std::vector<Matrix> all;
  struct Shape {
    int64_t rows, group, groups;
  };
  for (const Shape& s : {Shape{5, 64, 3},
                         {3, 1280, 2},
                         {7, 8, 5},
                         {2, 20, 3},
                         {0, 64, 2},
                         {4, 2048, 1},
                         {3, 128, 4},
                         {2, 1000, 1},
                         {3, 384, 2},
                         {1, 11008, 1}})
    all.emplace_back(random, grid, size, s.rows, s.group, s.groups);
  return all;
}

bool same(float a, float b) { return a == b || (a != a && b != b); }

template <class Body>
void for_all(const Body& body) {
  for (const GridCase& grid : kGrids)
    for (const float size : {1.0f, 1e30f}) {  // the second divides plainly
      SCOPED_TRACE(testing::Message() << "grid " << static_cast<int>(grid.kind) << ", " << grid.bits << " bits, "
                                      << size);
      body(FakeQuantGrid{grid.kind, grid.bits, 1}, matrices(grid, size));
    }
}

TEST(CudaEmulation, Forward) {
  for_all([](FakeQuantGrid grid, const std::vector<Matrix>& all) {
    std::vector<std::vector<__nv_bfloat16>> out;
    std::vector<FakeQuantTask> narrow, wide;
    for (const Matrix& m : all) out.emplace_back(m.w.wide.size());
    for (size_t i = 0; i < all.size(); ++i) {
      const Matrix& m = all[i];
      narrow.push_back({m.extent(), m.group, m.w.narrow.data(), m.scale.data(), m.zero_point.data(), out[i].data()});
      wide.push_back(narrow.back());
      wide.back().w = m.w.wide.data();
    }
    for (const auto& [tasks, dtype] : {std::pair{narrow, Dtype::kBFloat16}, std::pair{wide, Dtype::kFloat}}) {
      for (auto& values : out) std::fill(values.begin(), values.end(), __nv_bfloat16{0x1234});
      fake_quant_cuda(grid, tasks, dtype, Dtype::kBFloat16, nullptr);
      for (size_t k = 0; k < all.size(); ++k) {
        const Matrix& m = all[k];
        std::vector<float> expected(m.w.wide.size());
        grid.group_size = m.group;
        fake_quant_cpu<float>(grid, m.extent(), 0, m.rows, m.w.wide.data(), m.scale.data(), m.zero_point.data(),
                              expected.data());
        for (size_t i = 0; i < expected.size(); ++i)
          ASSERT_TRUE(same(__bfloat162float(out[k][i]), expected[i])) << "matrix " << k << ", weight " << i;
      }
    }
  });
}

TEST(CudaEmulation, Codes) {
  for_all([](FakeQuantGrid grid, const std::vector<Matrix>& all) {
    for (const Matrix& m : all) {
      grid.group_size = m.group;
      const size_t n = m.w.wide.size(), groups = m.scale.size();
      std::vector<uint8_t> codes(n, 99), expected_codes(n);
      std::vector<float> stored(groups), expected_stored(groups);
      std::vector<int32_t> zero(groups), expected_zero(groups);
      fake_quant_codes_cuda(grid, m.extent(), Dtype::kBFloat16, m.w.narrow.data(), m.scale.data(), m.zero_point.data(),
                            codes.data(), stored.data(), zero.data(), nullptr);
      fake_quant_codes_cpu<float>(grid, m.extent(), 0, m.rows, m.w.wide.data(), m.scale.data(), m.zero_point.data(),
                                  expected_codes.data(), expected_stored.data(), expected_zero.data());
      ASSERT_EQ(codes, expected_codes);
      ASSERT_EQ(stored, expected_stored);
      ASSERT_EQ(zero, expected_zero);
    }
  });
}

TEST(CudaEmulation, Backward) {
  for_all([](FakeQuantGrid grid, const std::vector<Matrix>& all) {
    struct Gradients {
      std::vector<float> w, scale, zero_point;
      explicit Gradients(const Matrix& m) : w(m.w.wide.size(), 7), scale(m.scale.size(), 7), zero_point(scale) {}
    };
    std::vector<Gradients> found;
    std::vector<FakeQuantBackwardTask> tasks;
    for (const Matrix& m : all) found.emplace_back(m);
    for (size_t i = 0; i < all.size(); ++i) {
      const Matrix& m = all[i];
      tasks.push_back({m.extent(), m.group, m.grad.narrow.data(), m.w.wide.data(), m.scale.data(), m.zero_point.data(),
                       found[i].w.data(), found[i].scale.data(), found[i].zero_point.data()});
    }
    fake_quant_backward_cuda(grid, tasks, Dtype::kBFloat16, Dtype::kFloat, nullptr);
    for (size_t k = 0; k < all.size(); ++k) {
      const Matrix& m = all[k];
      SCOPED_TRACE(testing::Message() << "matrix " << k);
      grid.group_size = m.group;
      // The reference in fp64 on the scales and weights as fp32 holds them.
      const std::vector<double> grad(m.grad.wide.begin(), m.grad.wide.end()), w(m.w.wide.begin(), m.w.wide.end());
      const std::vector<double> scale(m.scale.begin(), m.scale.end()), zero(m.zero_point.begin(), m.zero_point.end());
      std::vector<double> grad_w(w.size()), grad_scale(scale.size()), grad_zero(scale.size());
      fake_quant_backward_cpu<double>(grid, m.extent(), 0, m.rows, grad.data(), w.data(), scale.data(), zero.data(),
                                      grad_w.data(), grad_scale.data(), grad_zero.data());
      std::vector<float> mask(w.size()), unused(scale.size()), unused_zero(scale.size());
      fake_quant_backward_cpu<float>(grid, m.extent(), 0, m.rows, m.grad.wide.data(), m.w.wide.data(), m.scale.data(),
                                     m.zero_point.data(), mask.data(), unused.data(), unused_zero.data());
      ASSERT_EQ(found[k].w, mask);
      const double size = gradient_multiplier(grid) * std::sqrt(static_cast<double>(m.group)) * (1 << grid.bits);
      for (size_t g = 0; g < scale.size(); ++g) {
        if (std::isnan(grad_scale[g])) {
          EXPECT_TRUE(std::isnan(found[k].scale[g]));
          continue;
        }
        EXPECT_NEAR(found[k].scale[g], grad_scale[g], 3e-6 * size) << "group " << g;
        if (grid.kind == Grid::kAsymmetric) {
          EXPECT_NEAR(found[k].zero_point[g], grad_zero[g], 3e-6 * size * scale[g]) << "group " << g;
        }
      }
    }
  });
}

// Weights within a few units in the last place of where a code or the mask changes: any quotient that is not the
// correctly rounded one shows.
TEST(CudaEmulation, NearEveryTieAndEnd) {
  std::mt19937 random(2);
  for (const GridCase& grid_case : kGrids)
    for (const float size : {1e-5f, 3e-3f, 0.7f, 1e17f, 1e20f}) {
      FakeQuantGrid grid{grid_case.kind, grid_case.bits, 64, Rounding::kBFloat16, Rounding::kBFloat16};
      constexpr int64_t kRows = 32;
      std::vector<float> w, scale, zero_point, grad(kRows * 64, 1);
      const double ties[] = {0.5, 1, 0.99, 0.25, 1.0 / 3, 0.75};  // of u, or of its fractional part
      for (int64_t row = 0; row < kRows; ++row) {
        scale.push_back(size * (1 + static_cast<float>(random() % 1000) / 1000));
        zero_point.push_back(static_cast<float>(random() % (1u << grid.bits)));
        uint8_t code;
        float stored;
        int32_t zero;
        const float nothing = 0;
        FakeQuantGrid one = grid;
        one.group_size = 1;
        fake_quant_codes_cpu<float>(one, {1, 1}, 0, 1, &nothing, &scale.back(), &zero_point.back(), &code, &stored,
                                    &zero);
        const double unit = grid.kind == Grid::kSeq ? 4 : grid.kind == Grid::kTernary ? 1.5 : 1;
        for (int i = 0; i < 64; ++i) {
          const double whole = static_cast<double>(random() % (1u << grid.bits)) * (random() % 2 ? 1 : -1);
          const double u = (grid.bits > 2 ? whole : 0) + ties[random() % 6] * (random() % 2 ? 1 : -1);
          w.push_back(static_cast<float>(u * unit * stored * (1 + (static_cast<int>(random() % 7) - 3) * 6e-8)));
        }
      }
      const Extent extent{kRows, 64};
      std::vector<uint8_t> codes(w.size()), expected_codes(w.size());
      std::vector<float> stored(kRows), grad_w(w.size()), mask(w.size()), grad_scale(kRows), grad_zero(kRows);
      std::vector<int32_t> zero(kRows);
      fake_quant_codes_cuda(grid, extent, Dtype::kFloat, w.data(), scale.data(), zero_point.data(), codes.data(),
                            stored.data(), zero.data(), nullptr);
      fake_quant_codes_cpu<float>(grid, extent, 0, kRows, w.data(), scale.data(), zero_point.data(),
                                  expected_codes.data(), stored.data(), zero.data());
      ASSERT_EQ(codes, expected_codes) << static_cast<int>(grid.kind) << " " << grid.bits << " " << size;
      const std::vector<FakeQuantBackwardTask> tasks = {{extent, 64, grad.data(), w.data(), scale.data(),
                                                         zero_point.data(), grad_w.data(), grad_scale.data(),
                                                         grad_zero.data()}};
      fake_quant_backward_cuda(grid, tasks, Dtype::kFloat, Dtype::kFloat, nullptr);
      fake_quant_backward_cpu<float>(grid, extent, 0, kRows, grad.data(), w.data(), scale.data(), zero_point.data(),
                                     mask.data(), grad_scale.data(), grad_zero.data());
      ASSERT_EQ(grad_w, mask) << static_cast<int>(grid.kind) << " " << grid.bits << " " << size;
    }
}

TEST(CudaEmulation, DataScale) {
  for_all([](FakeQuantGrid grid, const std::vector<Matrix>& all) {
    for (const Matrix& m : all) {
      grid.group_size = m.group;
      std::vector<float> scale(m.scale.size(), 7), zero(scale), expected_scale(scale), expected_zero(scale);
      const std::vector<DataScaleTask> tasks = {{m.extent(), m.group, m.w.narrow.data(), scale.data(), zero.data()}};
      data_scale_cuda(grid, tasks, Dtype::kBFloat16, nullptr);
      data_scale_cpu<float>(grid, m.extent(), 0, m.rows, m.w.wide.data(), expected_scale.data(), expected_zero.data());
      for (size_t g = 0; g < scale.size(); ++g) {
        ASSERT_TRUE(same(scale[g], expected_scale[g])) << scale[g] << " " << expected_scale[g];
        ASSERT_TRUE(same(zero[g], expected_zero[g]));
      }
    }
  });
}

}  // namespace
}  // namespace satin::kernels
