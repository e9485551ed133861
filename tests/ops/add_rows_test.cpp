// Sums of rows by their ids against a loop in fp64, on the CPU and, where there is one, on the GPU.
#include "ops/add_rows.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include "core/error.h"
#include "support/test_support.h"

namespace satin::ops {
namespace {

struct Case {
  int64_t num_rows, width, num_ids;
};
// A few, tails of vectors and blocks, runs shorter and longer than the rows that are read at once, ids that nobody has.
constexpr Case kCases[] = {{0, 8, 3},     {1, 1, 1},       {7, 5, 3},        {16, 8, 1},      {17, 64, 1},  {33, 64, 2},
                           {100, 24, 40}, {1000, 256, 30}, {500, 2050, 300}, {3000, 2048, 5}, {64, 8200, 9}};

at::Tensor expected(const at::Tensor& sums, const at::Tensor& ids, const at::Tensor& rows) {
  at::Tensor result = sums.to(at::kDouble).clone();
  for (int64_t i = 0; i < ids.size(0); ++i) result[ids[i].item<int64_t>()] += rows[i].to(at::kDouble);
  return result;
}

void check(const at::Device& device) {
  for (const Case& c : kCases)
    for (const auto& [sum_dtype, row_dtype] :
         {std::pair{at::kFloat, at::kFloat}, std::pair{at::kFloat, at::kBFloat16}, std::pair{at::kDouble, at::kDouble},
          std::pair{at::kBFloat16, at::kBFloat16}}) {
      at::manual_seed(static_cast<uint64_t>(c.num_rows + c.width));
      // Small numbers are many, as tokens are.
      const at::Tensor ids = at::rand({c.num_rows}).square().mul(c.num_ids).to(at::kLong);
      const at::Tensor rows = at::randn({c.num_rows, c.width}).to(row_dtype);
      const at::Tensor before = at::randn({c.num_ids + 2, c.width}).to(sum_dtype);
      const at::Tensor right = expected(before, ids, rows);
      const std::string name = cat(c.num_rows, " rows of ", c.width, ", ", at::toString(row_dtype));
      at::Tensor first;
      for (int run = 0; run < 3; ++run) {
        const at::Tensor sums = before.to(device).clone();
        add_rows(sums, ids.to(device), rows.to(device));
        const double tolerance = sum_dtype == at::kDouble ? 1e-12 : sum_dtype == at::kFloat ? 2e-6 : 3e-2;
        const at::Tensor error = (sums.cpu().to(at::kDouble) - right).abs();
        const at::Tensor size = expected(before.abs(), ids, rows.abs());  // what rounding is relative to
        EXPECT_TRUE(error.le(size * tolerance * (sum_dtype == at::kBFloat16 ? 30 : 10)).all().item<bool>())
            << name << ": " << error.max().item<double>();
        if (run == 0) first = sums;
        EXPECT_TRUE(sum_dtype == at::kBFloat16 || sums.equal(first)) << name;
      }
    }
}

TEST(AddRows, SumsByIds) { check(at::kCPU); }

TEST(AddRows, RefusesWhatDoesNotFit) {
  const at::Tensor sums = at::zeros({4, 3}), rows = at::zeros({2, 3}), ids = at::zeros({2}, at::kLong);
  EXPECT_THROW(add_rows(sums, ids, at::zeros({2, 4})), InternalError);
  EXPECT_THROW(add_rows(sums, at::zeros({3}, at::kLong), rows), InternalError);
  EXPECT_THROW(add_rows(sums, ids.to(at::kInt), rows), InternalError);
  EXPECT_THROW(add_rows(sums.t(), ids, at::zeros({2, 4})), InternalError);
}

TEST(AddRowsGpu, SumsByIds) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device";
  check(at::Device(at::kCUDA, 0));
}

TEST(AddRowsGpu, HasTheBitsOfTheCpu) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device";
  for (const Case& c : kCases) {
    at::manual_seed(3);
    const at::Tensor ids = at::rand({c.num_rows}).square().mul(c.num_ids).to(at::kLong);
    const at::Tensor rows = at::randn({c.num_rows, c.width}).to(at::kBFloat16);
    const at::Tensor cpu = at::ones({c.num_ids, c.width}), cuda = cpu.cuda();
    add_rows(cpu, ids, rows);
    add_rows(cuda, ids.cuda(), rows.cuda());
    EXPECT_TRUE(cuda.cpu().equal(cpu)) << c.num_rows << " rows of " << c.width;
  }
}

}  // namespace
}  // namespace satin::ops
