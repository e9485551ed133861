// Lists of matrices owned by rows: gathered, and summed, against what the ranks put in.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <optional>

#include "dist/ranks.h"
#include "dist/sharing.h"

namespace satin::dist {
namespace {

const std::vector<std::vector<int64_t>> kShapes = {{7, 5}, {3, 4}, {12, 1}, {6, 2, 3}};

/// Small integers, so that sums are exact in every dtype; other ones on each rank.
at::Tensor matrix(size_t i, int64_t rank, at::ScalarType dtype) {
  const at::Tensor count = at::arange(c10::multiply_integers(kShapes[i]), at::kDouble).view(kShapes[i]);
  return count.mul(3).add(static_cast<double>(i)).mul(static_cast<double>(rank + 1)).remainder(17).to(dtype);
}

at::Tensor own_rows(const at::Tensor& whole, const Communicator& group) {
  const int64_t rows = whole.size(0), each = (rows + group.size() - 1) / group.size();
  return whole.slice(0, group.rank() * each, std::min(rows, (group.rank() + 1) * each));
}

int row_lists(const Launch& launch) {
  const auto group = join(launch, at::kCPU, 30);
  int failures = 0;
  const auto expect = [&](bool right, const char* what) {
    if (!right) std::printf("rank %ld: %s\n", launch.rank, what);
    failures += !right;
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    std::vector<at::Tensor> same, parts, mine, sums;
    std::vector<int64_t> num_rows;
    for (size_t i = 0; i < kShapes.size(); ++i) {
      same.push_back(matrix(i, 0, dtype));
      parts.push_back(own_rows(same[i], *group));
      num_rows.push_back(kShapes[i][0]);
      mine.push_back(matrix(i, group->rank(), dtype));
      sums.push_back(at::zeros(kShapes[i], dtype));
      for (int64_t rank = 0; rank < group->size(); ++rank) sums[i].add_(matrix(i, rank, dtype));
    }
    const std::vector<at::Tensor> gathered = RowGather(*group, parts, num_rows).finish();
    Sharing split;
    split.world = split.shards = group;
    Sharing whole;
    whole.world = whole.replicas = group;
    const std::vector<at::Tensor> rows = GradientReduce(split, mine, true).finish();
    const std::vector<at::Tensor> all = GradientReduce(whole, mine, false).finish();
    for (size_t i = 0; i < kShapes.size(); ++i) {
      expect(at::equal(gathered[i], same[i]), "gathered");
      expect(at::equal(rows[i], own_rows(sums[i], *group)), "summed by rows");
      expect(at::equal(all[i], sums[i]), "summed");
    }
  }
  // Rows of sums that are sent in another dtype.
  std::vector<at::Tensor> wide, bf16_sums;
  for (size_t i = 0; i < kShapes.size(); ++i) {
    wide.push_back(matrix(i, group->rank(), at::kFloat));
    bf16_sums.push_back(at::zeros(kShapes[i], at::kBFloat16));
    for (int64_t rank = 0; rank < group->size(); ++rank) bf16_sums[i].add_(matrix(i, rank, at::kBFloat16));
  }
  Sharing narrow;
  narrow.world = narrow.shards = group;
  narrow.reduce_dtype = at::kBFloat16;
  const std::vector<at::Tensor> of_bf16 = GradientReduce(narrow, wide, true).finish();
  for (size_t i = 0; i < kShapes.size(); ++i)
    expect(at::equal(of_bf16[i], own_rows(bf16_sums[i], *group)), "summed by rows in bf16");
  // Long lists are summed where they lie, short ones in a tensor of their own; sent in another dtype too.
  Sharing sharing;
  sharing.world = sharing.replicas = group;
  for (const int64_t n : {5, 600001})
    for (const auto dtype : {std::optional<at::ScalarType>(), std::optional(at::kBFloat16)}) {
      sharing.reduce_dtype = dtype;
      const at::Tensor count = at::arange(n, at::kLong).remainder(7).to(at::kFloat);
      std::vector<at::Tensor> list;
      for (int64_t i = 0; i < 3; ++i) list.push_back(count.add(static_cast<double>(i + group->rank())));
      const std::vector<at::Tensor> sums = GradientReduce(sharing, list, false).finish();
      const auto size = static_cast<double>(group->size());
      for (size_t i = 0; i < list.size(); ++i) {
        const at::Tensor sum = count.add(static_cast<double>(i)).mul(size).add(size * (size - 1) / 2);
        expect(at::equal(sums[i], sum), "a list's sum");  // fp32, though sent in bf16
        expect((sums[i].data_ptr() == list[i].data_ptr()) == (n > 5), "where a list's sum lies");
      }
    }
  sharing.reduce_dtype = at::kFloat;  // wider than what is summed: the sums too
  const at::Tensor one = at::full({3}, 1, at::kBFloat16), sum = GradientReduce(sharing, {one}, false).finish()[0];
  expect(sum.scalar_type() == at::kFloat && sum.eq(group->size()).all().item<bool>(), "a sum in fp32");
  return failures;
}
const test::RegisterJob kRowLists("row_lists", row_lists);

TEST(RowLists, EqualWhatTheRanksPutIn) {
  for (int size : {1, 2, 3}) test::run_job("row_lists", size);
}

int hybrid(const Launch& launch) {  // 2 x 2: rows over pairs, sums over all
  const auto world = join(launch, at::kCPU, 30);
  const int64_t host = launch.rank / 2, place = launch.rank % 2;
  Sharing sharing;
  sharing.world = world;
  sharing.shards = world->subgroup({2 * host, 2 * host + 1});
  sharing.replicas = world->subgroup({place, place + 2});
  if (sharing.shards->rank() != place || sharing.replicas->rank() != host) return 1;
  at::Tensor sum = at::zeros(kShapes[0], at::kDouble);
  for (int64_t rank = 0; rank < 4; ++rank) sum.add_(matrix(0, rank, at::kDouble));
  const at::Tensor found = GradientReduce(sharing, {matrix(0, launch.rank, at::kDouble)}, true).finish()[0];
  return at::equal(found, own_rows(sum, *sharing.shards)) ? 0 : 2;
}
const test::RegisterJob kHybrid("hybrid", hybrid);

TEST(RowLists, SumOverShardsAndReplicas) { test::run_job("hybrid", 4); }

}  // namespace
}  // namespace satin::dist
