// The CUDA clip search's own code on the CPU (kernels/cuda/emulation.h) against the CPU kernel: the same scale, or one
// whose error is the same to rounding. Groups for every path: within a thread, part of a warp, a warp's loop, a block
// with and without weights that are read again, unaligned tails.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/cuda/clip_search.cu"
#include "kernels/emulated_grids.h"

namespace satin::kernels {
namespace {

struct Shape {
  int64_t rows, group, groups;
};
constexpr Shape kShapes[] = {{5, 64, 3},   {7, 1, 5},    {2, 20, 3},   {3, 8, 1},    {1, 100, 2},
                             {1, 1000, 2}, {1, 2048, 1}, {1, 1025, 1}, {1, 11008, 1}};

/// A matrix whose values bf16 holds, with NaN and infinity in two groups where there are enough, and its columns'
/// importance: none for a tenth of the columns and for the last group.
struct Matrix {
  Shape shape;
  std::vector<float> w, importance;
  std::vector<__nv_bfloat16> narrow;

  Matrix(const Shape& shape, float size) : shape(shape) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    const int64_t count = shape.rows * shape.groups;
    for (int64_t i = 0; i < count * shape.group; ++i) {
      const int64_t g = i / shape.group;
      const bool first = i % shape.group == 0;
      const float x = count > 4 && first && g == 1 ? NAN : count > 4 && first && g == 3 ? -INFINITY : normal(random);
      narrow.push_back(__float2bfloat16_rn(x * 0.02f * size));
      w.push_back(__bfloat162float(narrow.back()));
    }
    for (int64_t k = 0; k < shape.group * shape.groups; ++k) {
      const bool none = random() % 10 == 0 || (shape.groups > 1 && k / shape.group == shape.groups - 1);
      importance.push_back(none ? 0 : std::exp(2 * normal(random)));
    }
  }
  Extent extent() const { return {shape.rows, shape.group * shape.groups}; }
};

struct Found {
  std::vector<float> scale, zero_point;
  explicit Found(const Shape& shape) : scale(shape.rows * shape.groups, 7), zero_point(scale) {}
};

template <class T>
bool same(T a, T b) {
  return a == b || (a != a && b != b);
}

/// A group's error in fp64 by the forward itself.
double error_of(FakeQuantGrid grid, const Matrix& m, const float* importance, const Found& found, int64_t g) {
  grid.dequant_rounding = Rounding::kNone;
  const int64_t n = m.shape.group;
  const std::vector<double> w(m.w.begin() + g * n, m.w.begin() + (g + 1) * n);
  std::vector<double> value(w.size());
  const double scale = found.scale[g], zero = found.zero_point[g];
  fake_quant_cpu<double>(grid, {1, n}, 0, 1, w.data(), &scale, &zero, value.data());
  const float* columns = importance ? importance + g % m.shape.groups * n : nullptr;
  bool weighted = false;
  for (int64_t i = 0; columns && i < n; ++i) weighted |= columns[i] > 0;
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i)
    sum += (weighted ? double{columns[i]} : 1) * (value[i] - w[i]) * (value[i] - w[i]);
  return sum;
}

void expect_same(const FakeQuantGrid& grid, const Matrix& m, const float* importance, const Found& found,
                 const Found& expected) {
  for (size_t g = 0; g < found.scale.size(); ++g) {
    if (std::isnan(expected.scale[g])) {
      EXPECT_TRUE(std::isnan(found.scale[g])) << "group " << g;
    } else if (found.scale[g] != expected.scale[g] || found.zero_point[g] != expected.zero_point[g]) {
      const double error = error_of(grid, m, importance, expected, static_cast<int64_t>(g));
      EXPECT_NEAR(error_of(grid, m, importance, found, static_cast<int64_t>(g)), error, 1e-6 * error) << "group " << g;
    }
  }
}

void compare(const GridCase& grid_case, const Shape& shape, float size, Dtype dtype, bool weighted) {
  SCOPED_TRACE(testing::Message() << "grid " << static_cast<int>(grid_case.kind) << ", " << grid_case.bits
                                  << " bits, group " << shape.group << ", size " << size << ", dtype "
                                  << static_cast<int>(dtype) << ", weighted " << weighted);
  const FakeQuantGrid grid{grid_case.kind, grid_case.bits, shape.group};
  const Matrix m(shape, size);
  const float* importance = weighted ? m.importance.data() : nullptr;
  Found found(shape), expected(shape);
  clip_search_cpu<float>(grid, m.extent(), 0, shape.rows, m.w.data(), importance, expected.scale.data(),
                         expected.zero_point.data());
  const void* w = dtype == Dtype::kFloat ? static_cast<const void*>(m.w.data()) : m.narrow.data();
  clip_search_cuda(grid, m.extent(), dtype, w, importance, found.scale.data(), found.zero_point.data(), nullptr);
  expect_same(grid, m, importance, found, expected);
}

TEST(ClipSearchEmulation, IsTheCpusUpToNearTies) {
  for (const GridCase& grid : kGrids)
    for (const Shape& shape : kShapes) {
      compare(grid, shape, 1, Dtype::kBFloat16, false);
      compare(grid, shape, 1, Dtype::kFloat, true);
    }
}

TEST(ClipSearchEmulation, PlainDivisionsAndOverflow) {
  for (const GridCase& grid : kGrids)
    for (const bool weighted : {false, true})
      for (const float size : {1e18f, 1e30f}) compare(grid, {2, 64, 3}, size, Dtype::kFloat, weighted);
}

TEST(ClipSearchEmulation, Doubles) {
  for (const GridCase& grid_case : kGrids)
    for (const Shape& shape : {Shape{2, 64, 3}, Shape{2, 20, 3}}) {
      const FakeQuantGrid grid{grid_case.kind, grid_case.bits, shape.group};
      const Matrix m(shape, 1);
      const std::vector<double> w(m.w.begin(), m.w.end()), importance(m.importance.begin(), m.importance.end());
      std::vector<double> scale(shape.rows * shape.groups), zero(scale), expected_scale(scale), expected_zero(scale);
      clip_search_cuda(grid, m.extent(), Dtype::kDouble, w.data(), importance.data(), scale.data(), zero.data(),
                       nullptr);
      clip_search_cpu<double>(grid, m.extent(), 0, shape.rows, w.data(), importance.data(), expected_scale.data(),
                              expected_zero.data());
      for (size_t g = 0; g < scale.size(); ++g) {
        EXPECT_TRUE(same(scale[g], expected_scale[g])) << "group " << g;
        if (grid.kind == Grid::kAsymmetric) {
          EXPECT_TRUE(same(zero[g], expected_zero[g])) << "group " << g;
        }
      }
    }
}

TEST(ClipSearchEmulation, ImportanceOfOneIsNone) {
  for (const GridCase& grid_case : kGrids)
    for (const Shape& shape : {Shape{2, 64, 3}, Shape{1, 1000, 1}}) {
      const FakeQuantGrid grid{grid_case.kind, grid_case.bits, shape.group};
      const Matrix m(shape, 1);
      const std::vector<float> ones(m.importance.size(), 1);
      Found plain(shape), weighted(shape);
      clip_search_cuda(grid, m.extent(), Dtype::kFloat, m.w.data(), nullptr, plain.scale.data(),
                       plain.zero_point.data(), nullptr);
      clip_search_cuda(grid, m.extent(), Dtype::kFloat, m.w.data(), ones.data(), weighted.scale.data(),
                       weighted.zero_point.data(), nullptr);
      for (size_t g = 0; g < plain.scale.size(); ++g) {
        EXPECT_TRUE(same(plain.scale[g], weighted.scale[g])) << "group " << g;
        EXPECT_TRUE(same(plain.zero_point[g], weighted.zero_point[g])) << "group " << g;
      }
    }
}

}  // namespace
}  // namespace satin::kernels
