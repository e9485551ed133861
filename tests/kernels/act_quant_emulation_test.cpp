// The CUDA kernels of act_quant.h on the CPU (kernels/cuda/emulation.h) against the CPU kernels: rows for every path
// (part of a warp, some warps, a block, beyond its registers, odd and unaligned rows), NaN and infinity among them.
// Whether the GPU agrees is tested in tests/ops, on a GPU.
#include <gtest/gtest.h>

#include <random>

#include "kernels/cuda/act_quant.cu"
#include "kernels/cuda/act_quant_static.cu"

namespace satin::kernels {
namespace {

constexpr ActivationFormat kFormats[] = {ActivationFormat::kInt8, ActivationFormat::kInt4, ActivationFormat::kFloat8};

/// Rows of values in every dtype; `wide` holds bf16 values.
struct Rows {
  Extent extent;
  std::vector<float> wide, grad;
  std::vector<__nv_bfloat16> narrow, narrow_grad;

  Rows(Extent extent, float size, bool damaged) : extent(extent) {
    std::mt19937 random(static_cast<unsigned>(extent.num_columns));
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < extent.num_rows * extent.num_columns; ++i) {
      const int64_t row = i / extent.num_columns;
      const float x = damaged && row == 1 ? (i % 2 ? NAN : 1) : damaged && row == 2 ? INFINITY : normal(random);
      add(wide, narrow, row == 0 && i % 3 == 0 ? -0.0f : size * x);
      add(grad, narrow_grad, normal(random));
    }
  }
  size_t size() const { return wide.size(); }

 private:
  static void add(std::vector<float>& wide, std::vector<__nv_bfloat16>& narrow, float x) {
    narrow.push_back(__float2bfloat16_rn(x));
    wide.push_back(__bfloat162float(narrow.back()));
  }
};

template <class Body>
void for_all(const Body& body) {
  for (const ActivationFormat format : kFormats)
    for (const auto& [size, damaged] :
         {std::pair{1.0f, false}, {1.0f, true}, {1e-7f, false}, {1e30f, false}})  // the last divides plainly
      for (const Extent& extent : {Extent{70, 1}, Extent{9, 7}, Extent{40, 64}, Extent{5, 65}, Extent{6, 100},
                                   Extent{20, 128}, Extent{3, 512}, Extent{5, 1000}, Extent{3, 2048}, Extent{1, 5000},
                                   Extent{2, 8192}, Extent{1, 8200}, Extent{0, 64}, Extent{3, 0}, Extent{1100, 72}}) {
        SCOPED_TRACE(testing::Message() << "format " << static_cast<int>(format) << ", size " << size << ", ["
                                        << extent.num_rows << ", " << extent.num_columns << "], " << damaged);
        body(format, Rows(extent, size, damaged));
      }
}

bool same(float a, float b) { return a == b || (a != a && b != b); }

void expect_same(const std::vector<float>& found, const std::vector<float>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_TRUE(same(found[i], expected[i])) << "value " << i;
}
void expect_same(const std::vector<__nv_bfloat16>& found, const std::vector<float>& expected) {
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_TRUE(same(__bfloat162float(found[i]), round_bfloat16(expected[i]))) << "value " << i;
}

TEST(ActQuantEmulation, DynamicHasTheCpusBits) {
  for_all([](ActivationFormat format, const Rows& rows) {
    std::vector<float> expected(rows.size()), wide(rows.size(), 7);
    std::vector<__nv_bfloat16> narrow(rows.size());
    act_quant_cpu<float>(format, rows.extent, 0, rows.extent.num_rows, rows.wide.data(), expected.data());
    act_quant_cuda(format, rows.extent, Dtype::kFloat, rows.wide.data(), wide.data(), nullptr);
    act_quant_cuda(format, rows.extent, Dtype::kBFloat16, rows.narrow.data(), narrow.data(), nullptr);
    expect_same(wide, expected);
    expect_same(narrow, expected);
  });
}

TEST(ActQuantEmulation, CodesHaveTheCpusBits) {
  for_all([](ActivationFormat format, const Rows& rows) {
    const size_t num_rows = static_cast<size_t>(rows.extent.num_rows);
    std::vector<uint8_t> codes(rows.size(), 99), expected_codes(rows.size());
    std::vector<float> scale(num_rows, 7), expected_scale(num_rows);
    act_quant_codes_cpu<float>(format, rows.extent, 0, rows.extent.num_rows, rows.wide.data(), expected_codes.data(),
                               expected_scale.data());
    act_quant_codes_cuda(format, rows.extent, Dtype::kBFloat16, rows.narrow.data(), codes.data(), scale.data(),
                         nullptr);
    ASSERT_EQ(codes, expected_codes);
    expect_same(scale, expected_scale);
  });
}

TEST(ActQuantEmulation, CodesInTheOrderOfPackedWeightsHaveTheCpusBits) {
  for_all([](ActivationFormat format, const Rows& rows) {
    const int64_t columns = rows.extent.num_columns, num_rows = rows.extent.num_rows, row_bytes = a8_row_bytes(columns);
    if (format != ActivationFormat::kInt8 || columns % 8 != 0 || columns == 0) return;
    const auto n = static_cast<size_t>(num_rows);
    std::vector<uint8_t> codes(n * static_cast<size_t>(row_bytes), 99), expected_codes(rows.size());
    std::vector<float> scale(n, 7), expected_scale(n), expected(rows.size());
    std::vector<__nv_bfloat16> values(rows.size());
    act_quant_codes_cpu<float>(format, rows.extent, 0, num_rows, rows.wide.data(), expected_codes.data(),
                               expected_scale.data());
    act_quant_cpu<float>(format, rows.extent, 0, num_rows, rows.wide.data(), expected.data());
    for (const bool with_values : {false, true}) {
      std::ranges::fill(codes, uint8_t{99});
      a8_codes_cuda(rows.extent, Dtype::kBFloat16, rows.narrow.data(), codes.data(), scale.data(),
                    with_values ? values.data() : nullptr, nullptr);
      for (int64_t row = 0; row < num_rows; ++row)
        for (int64_t column = 0; column < row_bytes; ++column)
          ASSERT_EQ(codes[static_cast<size_t>(row * row_bytes + a8_place(column))],
                    column < columns ? expected_codes[static_cast<size_t>(row * columns + column)] : 0)
              << row << ", " << column;
      expect_same(scale, expected_scale);
    }
    expect_same(values, expected);
  });
}

TEST(ActQuantEmulation, StaticHasTheCpusBits) {
  for_all([](ActivationFormat format, const Rows& rows) {
    for (const float scale : {rows.extent.num_columns == 64 ? NAN : 0.01f, 3e28f}) {  // the second divides plainly
      std::vector<float> expected(rows.size()), wide(rows.size(), 7);
      std::vector<__nv_bfloat16> narrow(rows.size());
      act_quant_static_cpu<float>(format, rows.extent, 0, rows.extent.num_rows, rows.wide.data(), &scale,
                                  expected.data());
      act_quant_static_cuda(format, rows.extent, Dtype::kFloat, rows.wide.data(), &scale, wide.data(), nullptr);
      act_quant_static_cuda(format, rows.extent, Dtype::kBFloat16, rows.narrow.data(), &scale, narrow.data(), nullptr);
      expect_same(wide, expected);
      expect_same(narrow, expected);
    }
  });
}

TEST(ActQuantEmulation, StaticBackward) {
  for_all([](ActivationFormat format, const Rows& rows) {
    const float scale = rows.extent.num_columns == 65 ? 0.0f : 0.01f;
    const int64_t num_rows = rows.extent.num_rows;
    std::vector<float> mask(rows.size()), grad_x(rows.size(), 7);
    std::vector<__nv_bfloat16> narrow(rows.size());
    std::vector<double> row_sums(static_cast<size_t>(num_rows));
    act_quant_static_backward_cpu<float>(format, rows.extent, 0, num_rows, rows.grad.data(), rows.wide.data(), &scale,
                                         mask.data(), row_sums.data());
    const double expected = act_quant_scale_gradient(format, rows.extent, row_sums.data());
    const double tolerance = 1e-5 * act_quant_multiplier(format, rows.extent) * top(format) * rows.size();

    std::vector<double> sums(static_cast<size_t>(act_quant_num_sums(rows.extent)));
    for (const Dtype dtype : {Dtype::kFloat, Dtype::kBFloat16}) {
      float grad_scale = 7;
      const bool wide = dtype == Dtype::kFloat;
      act_quant_static_backward_cuda(
          format, rows.extent, dtype, wide ? static_cast<const void*>(rows.grad.data()) : rows.narrow_grad.data(),
          wide ? static_cast<const void*>(rows.wide.data()) : rows.narrow.data(), &scale,
          wide ? static_cast<void*>(grad_x.data()) : narrow.data(), &grad_scale, sums.data(), nullptr);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(grad_scale));
      } else if (rows.size() == 0) {
        EXPECT_EQ(grad_scale, 0);
      } else {
        EXPECT_NEAR(grad_scale, expected, tolerance);
      }
    }
    expect_same(grad_x, mask);
    expect_same(narrow, mask);
  });
}

// Values within a few units in the last place of a tie: any quotient that is not the correctly rounded one shows.
TEST(ActQuantEmulation, NearEveryTie) {
  std::mt19937 random(2);
  constexpr Extent kExtent{1024, 64};
  for (const ActivationFormat format : kFormats)
    for (const float size : {3e-5f, 0.7f, 50.0f, 1e17f, 1e20f}) {
      const float top_level = static_cast<float>(top(format));
      std::vector<float> x;
      for (int64_t row = 0; row < kExtent.num_rows; ++row) {
        const float scale = size * (1 + static_cast<float>(random() % 1000) / 1000) / top_level;
        x.push_back(scale * top_level);
        while (x.size() % 64 != 0) {
          const double step =
              std::ldexp(1, format == ActivationFormat::kFloat8 ? static_cast<int>(random() % 15) - 9 : 0);
          const auto levels = format == ActivationFormat::kFloat8 ? 16u : static_cast<unsigned>(top_level);
          const bool plain = x.size() / 8 % 2 == 1;  // every other vector: both ways of rounding in a row
          const double tie =
              (static_cast<int>(random() % levels) + (plain ? 0.3 : 0.5)) * step * (random() % 2 ? 1 : -1);
          x.push_back(static_cast<float>(tie * scale * (1 + (static_cast<int>(random() % 7) - 3) * 6e-8)));
        }
      }
      std::vector<uint8_t> codes(x.size()), expected_codes(x.size());
      std::vector<float> scale(kExtent.num_rows), expected_scale(kExtent.num_rows);
      act_quant_codes_cuda(format, kExtent, Dtype::kFloat, x.data(), codes.data(), scale.data(), nullptr);
      act_quant_codes_cpu<float>(format, kExtent, 0, kExtent.num_rows, x.data(), expected_codes.data(),
                                 expected_scale.data());
      ASSERT_EQ(scale, expected_scale);
      ASSERT_EQ(codes, expected_codes) << static_cast<int>(format) << " " << size;
    }
}

TEST(ActQuantEmulation, UnalignedAndFloat64) {
  for (const ActivationFormat format : kFormats) {
    const Rows rows({3, 64}, 1, true);
    std::vector<float> shifted(rows.size() + 1), out(rows.size() + 1), expected(rows.size());
    std::copy(rows.wide.begin(), rows.wide.end(), shifted.begin() + 1);
    act_quant_cpu<float>(format, rows.extent, 0, 3, rows.wide.data(), expected.data());
    act_quant_cuda(format, rows.extent, Dtype::kFloat, shifted.data() + 1, out.data() + 1, nullptr);
    expect_same(std::vector<float>(out.begin() + 1, out.end()), expected);

    const std::vector<double> x(rows.wide.begin(), rows.wide.end());
    std::vector<double> wide(x.size()), wide_expected(x.size());
    act_quant_cpu<double>(format, rows.extent, 0, 3, x.data(), wide_expected.data());
    act_quant_cuda(format, rows.extent, Dtype::kDouble, x.data(), wide.data(), nullptr);
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_TRUE(wide[i] == wide_expected[i] || (std::isnan(wide[i]) && std::isnan(wide_expected[i])));
  }
}

}  // namespace
}  // namespace satin::kernels
