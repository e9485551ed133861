// The CUDA kernels between the matrix products on the CPU (kernels/cuda/emulation.h) against the CPU kernels: rows for
// every path. Whether the GPU agrees is tested in tests/ops, on a GPU.
#include <gtest/gtest.h>

#include <random>

#include "kernels/cuda/adamw.cu"
#include "kernels/cuda/add_rows.cu"
#include "kernels/cuda/rms_norm.cu"
#include "kernels/cuda/rope.cu"
#include "kernels/cuda/swiglu.cu"

namespace satin::kernels {
namespace {

std::mt19937& generator() {
  static std::mt19937 random(7);
  return random;
}

/// Values that bfloat16 holds, in both formats.
struct Values {
  std::vector<float> wide;
  std::vector<__nv_bfloat16> narrow;

  explicit Values(int64_t n, float size = 1) {
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < n; ++i) {
      narrow.push_back(__float2bfloat16_rn(size * normal(generator())));
      wide.push_back(__bfloat162float(narrow.back()));
    }
  }
  size_t size() const { return wide.size(); }
  void* data(Dtype dtype) { return dtype == Dtype::kFloat ? static_cast<void*>(wide.data()) : narrow.data(); }
  float at(Dtype dtype, size_t i) const { return dtype == Dtype::kFloat ? wide[i] : __bfloat162float(narrow[i]); }
};

void expect_near(Values& found, Dtype dtype, const std::vector<float>& expected, const char* what) {
  const float step = dtype == Dtype::kFloat ? 3e-6f : 0.008f;
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(found.at(dtype, i), expected[i], step * (std::fabs(expected[i]) + 0.1f)) << what << " " << i;
}

TEST(LayersEmulation, RmsNorm) {
  for (const Extent& extent :
       {Extent{3, 7}, Extent{70, 64}, Extent{9, 128}, Extent{11, 512}, Extent{3, 520}, Extent{5, 1024}, Extent{1, 1001},
        Extent{540, 2048}, Extent{2, 3072}, Extent{2, 8192}, Extent{1, 16384}, Extent{2, 5001}, Extent{0, 64}})
    for (const auto& [x_dtype, y_dtype] : {std::pair{Dtype::kFloat, Dtype::kFloat},
                                           {Dtype::kFloat, Dtype::kBFloat16},
                                           {Dtype::kBFloat16, Dtype::kBFloat16}})
      for (const bool with_delta : {false, true}) {
        if (with_delta && x_dtype == Dtype::kBFloat16) continue;
        SCOPED_TRACE(testing::Message() << "[" << extent.num_rows << ", " << extent.num_columns << "] " << with_delta);
        const int64_t n = extent.num_rows * extent.num_columns, columns = extent.num_columns;
        Values x(n), delta(n), weight(columns), grad(n), later(n);
        Values sum(n), y(n), rstd(extent.num_rows), grad_x(n), grad_delta(n), grad_weight(columns);
        Values partials(std::max(rms_norm_num_partials_cuda(extent), rms_norm_num_partials_cpu(extent)) * columns);
        std::vector<float> cpu_sum(sum.size()), cpu_y(y.size()), cpu_rstd(rstd.size()), cpu_grad(x.size());
        rms_norm_cpu<float>(extent, 1e-5, 0, extent.num_rows,
                            {x.wide.data(), with_delta ? delta.wide.data() : nullptr, weight.wide.data(),
                             cpu_sum.data(), cpu_y.data(), cpu_rstd.data()});
        rms_norm_cuda(extent, 1e-5, x_dtype, y_dtype,
                      {x.data(x_dtype), with_delta ? delta.data(y_dtype) : nullptr, weight.wide.data(),
                       sum.data(x_dtype), y.data(y_dtype), rstd.wide.data()},
                      nullptr);
        expect_near(y, y_dtype, cpu_y, "y");
        if (with_delta) expect_near(sum, x_dtype, cpu_sum, "sum");
        expect_near(rstd, Dtype::kFloat, cpu_rstd, "rstd");

        const void* read = with_delta ? static_cast<const void*>(cpu_sum.data()) : x.wide.data();
        rms_norm_backward_cpu<float>(
            extent, 0, extent.num_rows,
            {grad.wide.data(), with_delta ? later.wide.data() : nullptr, read, weight.wide.data(), cpu_rstd.data(),
             cpu_grad.data(), nullptr, nullptr, partials.wide.data()});
        std::vector<double> cpu_weight(weight.size());
        for (int64_t i = 0; i < rms_norm_num_partials_cpu(extent) * columns; ++i)
          cpu_weight[static_cast<size_t>(i % columns)] += partials.wide[static_cast<size_t>(i)];
        std::fill(partials.wide.begin(), partials.wide.end(), NAN);  // every one is written
        rms_norm_backward_cuda(extent, x_dtype, y_dtype,
                               {grad.data(y_dtype), with_delta ? later.data(x_dtype) : nullptr,
                                with_delta ? sum.data(x_dtype) : x.data(x_dtype), weight.wide.data(), cpu_rstd.data(),
                                grad_x.data(x_dtype), with_delta ? grad_delta.data(y_dtype) : nullptr,
                                grad_weight.wide.data(), partials.wide.data()},
                               nullptr);
        expect_near(grad_x, x_dtype, cpu_grad, "grad x");
        if (with_delta) expect_near(grad_delta, y_dtype, cpu_grad, "grad delta");
        for (size_t i = 0; i < weight.size(); ++i)
          ASSERT_NEAR(grad_weight.wide[i], cpu_weight[i], 2e-5 * (std::sqrt(static_cast<double>(extent.num_rows)) + 1));
      }
}

TEST(LayersEmulation, Swiglu) {
  for (int64_t n : {0, 1, 7, 64, 2051, 4096})
    for (const Dtype dtype : {Dtype::kFloat, Dtype::kBFloat16}) {
      Values gate(n, 6), up(n), grad(n), y(n), grad_gate(n), grad_up(n);
      std::vector<float> expected(y.size()), expected_gate(y.size()), expected_up(y.size());
      swiglu_cpu<float>(0, n, gate.wide.data(), up.wide.data(), expected.data());
      swiglu_cuda(n, dtype, gate.data(dtype), up.data(dtype), y.data(dtype), nullptr);
      expect_near(y, dtype, expected, "y");
      swiglu_backward_cpu<float>(0, n, grad.wide.data(), gate.wide.data(), up.wide.data(), expected_gate.data(),
                                 expected_up.data());
      swiglu_backward_cuda(n, dtype, grad.data(dtype), gate.data(dtype), up.data(dtype), grad_gate.data(dtype),
                           grad_up.data(dtype), nullptr);
      expect_near(grad_gate, dtype, expected_gate, "grad gate");
      expect_near(grad_up, dtype, expected_up, "grad up");
    }
}

TEST(LayersEmulation, Rope) {
  for (int64_t features : {2, 6, 16, 64, 80})
    for (const bool heads_first : {false, true})
      for (const bool inverse : {false, true}) {
        const RopeShape shape{2, 3, 5, features};
        const RopeStrides strides = heads_first ? RopeStrides{3 * 5 * features, 5 * features, features}
                                                : RopeStrides{3 * 5 * features, features, 3 * features};
        Values x(2 * 3 * 5 * features), cos(5 * features / 2), sin(5 * features / 2), y(static_cast<int64_t>(x.size()));
        std::vector<float> expected(x.size());
        rope_cpu<float>(shape, inverse, 0, 2 * 3 * 5, x.wide.data(), strides, cos.wide.data(), sin.wide.data(),
                        expected.data(), strides);
        for (const Dtype dtype : {Dtype::kFloat, Dtype::kBFloat16}) {
          rope_cuda(shape, inverse, dtype, x.data(dtype), strides, cos.wide.data(), sin.wide.data(), y.data(dtype),
                    strides, nullptr);
          for (size_t i = 0; i < x.size(); ++i) {
            const float rounded = __bfloat162float(__float2bfloat16_rn(expected[i]));
            ASSERT_EQ(y.at(dtype, i), dtype == Dtype::kFloat ? expected[i] : rounded);
          }
        }
      }
}

TEST(LayersEmulation, AddRowsHasTheBitsOfTheCpu) {
  // Runs of 1, of 2, of a multiple of the rows that are read at once, and of a tail more; columns in vectors, with a
  // tail, and in two blocks.
  std::vector<int64_t> ids{0, 2, 2};
  ids.insert(ids.end(), 128, 3);
  ids.insert(ids.end(), 140, 5);
  std::vector<int64_t> order(ids.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>((i * 7) % order.size());
  for (const int64_t width : {8, 13, 2064})
    for (const Dtype dtype : {Dtype::kFloat, Dtype::kBFloat16}) {
      const auto n = static_cast<int64_t>(ids.size());
      Values rows(n * width);
      std::vector<float> cpu(static_cast<size_t>(7 * width), 0.5f), cuda = cpu;
      add_rows_cpu<float>(0, width, {n, width, ids.data(), order.data(), rows.wide.data(), cpu.data()});
      add_rows_cuda(AddRows<float>{n, width, ids.data(), order.data(), rows.data(dtype), cuda.data()}, dtype, nullptr);
      EXPECT_EQ(cuda, cpu) << width;
    }
}

TEST(LayersEmulation, AdamWHasTheBitsOfTheCpu) {
  // More tensors than a launch takes, in vectors and without; blocks of one tensor and their tails.
  constexpr AdamWBetas kBetas{0.9, 0.95, 1e-8};
  const float corrections[2] = {1.5f, 2.5f}, clip = 0.25f;
  std::vector<Values> values;
  std::vector<AdamWTask<float>> cpu, cuda;
  for (int i = 0; i < 600; ++i) {
    const int64_t n = i == 0 ? 0 : i == 1 ? 4100 : i == 2 ? 2049 : i % 2 == 0 ? 8 : 3;
    const Values w(n), gradient(n), mean(n), square(n, 0.1f);
    for (std::vector<AdamWTask<float>>* tasks : {&cpu, &cuda}) {
      values.insert(values.end(), {w, gradient, mean, square});
      for (float& v : values.back().wide) v = std::fabs(v);
      const auto at = [&](size_t back) { return (values.end() - static_cast<std::ptrdiff_t>(back))->wide.data(); };
      tasks->push_back({n, at(4), at(3), at(2), at(1), corrections, i % 3 == 0 ? &clip : nullptr, 1e-2, i % 2 * 0.1});
    }
  }
  for (const AdamWTask<float>& task : cpu) adamw_cpu<float>(0, task.n, kBetas, task);
  const float skip = 1, go = 0;
  const std::vector<float> before(cuda[1].w, cuda[1].w + cuda[1].n);
  adamw_cuda<float>(cuda, kBetas, &skip, nullptr);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), cuda[1].w));
  adamw_cuda<float>(cuda, kBetas, &go, nullptr);
  for (size_t i = 0; i < cpu.size(); ++i) {
    EXPECT_TRUE(std::equal(cpu[i].w, cpu[i].w + cpu[i].n, cuda[i].w)) << i;
    EXPECT_TRUE(std::equal(cpu[i].mean, cpu[i].mean + cpu[i].n, cuda[i].mean)) << i;
    EXPECT_TRUE(std::equal(cpu[i].square, cpu[i].square + cpu[i].n, cuda[i].square)) << i;
  }
}

}  // namespace
}  // namespace satin::kernels
