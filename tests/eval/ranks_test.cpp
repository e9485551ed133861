// Tasks on several ranks (real processes over Gloo): every number of one process, to the bit.
#include "dist/ranks.h"

#include <ATen/ATen.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "core/interrupt.h"
#include "eval/in_batches.h"
#include "eval/protocol.h"
#include "eval/robustness.h"
#include "eval/smoothness.h"
#include "models/tiny_model.h"
#include "support/test_support.h"

namespace satin::eval {
namespace {

/// Everything that tasks return, batches being small: 7 of them, or 4.
nlohmann::json all_results(dist::Communicator& ranks) {
  models::Decoder student(models::tiny_config(), nn::dense_linear_factory(), {});
  models::randomise(student);
  models::Decoder teacher(models::tiny_config(), nn::dense_linear_factory(), {});
  models::randomise(teacher);
  student.head().weight().detach().mul_(1.25);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 16 * 13 + 5; ++i) tokens.push_back((i * i * 3 + 5 * i) % 31);

  nlohmann::json results;
  results["perplexity"] = to_json(perplexity(student, tokens, 16, 0, {.batch_tokens = 32}, ranks), student, "");
  std::vector<std::vector<int32_t>> sequences;
  for (int first = 0, length = 2; first + length < 200; first += length, length = 2 + length * 5 % 17)
    sequences.emplace_back(tokens.begin() + first, tokens.begin() + first + length);
  for (const Scores& scores : score(student, sequences, {.batch_tokens = 40, .argmax = true}, ranks))
    results["scores"].push_back({scores.log_prob, scores.is_argmax});
  const Smoothness smooth =
      smoothness(student, &teacher, tokens, {.sequence_length = 16, .num_roots = 20, .batch_tokens = 32}, ranks);
  results["smoothness"] = to_json(smooth, student, "");
  results["norms"] = {smooth.student.x0, smooth.student.x1, smooth.teacher->x0, smooth.teacher->x1};
  results["roots"] = dump_roots(smooth);
  const Windows windows = cut_windows("trees", tokens, 16, 0);
  const TreeOptions tree = {.num_roots = 11, .num_tokens = 31, .batch_tokens = 24};
  results["paths"] = walk_tree(student, teacher, windows, draw_roots(windows, tree), tree, ranks);
  RobustnessOptions options;
  options.sequence_length = 16;
  options.score.batch_tokens = 64;
  results["robustness"] = to_json(robustness(student, &teacher, tokens, options, ranks), student, "");
  results["alone"] = to_json(robustness(student, nullptr, tokens, options, ranks), student, "");
  return results;
}

int equal_results(const dist::Launch& launch) {
  const auto world = dist::join(launch, at::kCPU, 60);
  const std::string expected = all_results(*dist::Communicator::alone()).dump(), found = all_results(*world).dump();
  if (found != expected) throw InternalError(cat("expected ", expected, "\nfound ", found));
  return 0;
}
const test::RegisterJob kEqual("eval_equal", equal_results);

/// What each rank says when batch 4 of 9 goes wrong; the batches that were added.
template <class Trouble>
std::string outcome(dist::Communicator& world, const Trouble& trouble) {
  int64_t added = 0;
  const auto work = [&](Range range) {
    if (range.first == 4) trouble();
    return Numbers{static_cast<double>(range.first)};
  };
  const auto add = [&](Range range, const Numbers& numbers) {
    SATIN_CHECK_EQ(numbers.at(0), static_cast<double>(range.first));
    SATIN_CHECK_EQ(range.first, added);
    ++added;
  };
  try {
    in_batches(world, "test: thing", even_batches(9, 1), work, add);
  } catch (const UserError& error) {
    return cat("UserError ", error.what(), " after ", added);
  } catch (const InterruptedError& error) {
    return cat("InterruptedError after ", added);
  }
  return cat("done ", added);
}

int trouble(const dist::Launch& launch) {
  const auto world = dist::join(launch, at::kCPU, 60);
  const auto expect = [](const std::string& found, const std::string& expected) {
    if (found != expected) throw InternalError(cat("expected ", expected, ", found ", found));
  };
  expect(outcome(*world, [] {}), "done 9");
  expect(outcome(*world, [] { throw UserError("no such thing"); }), "UserError rank 1: no such thing after 3");
  install_interrupt_handlers();
  expect(outcome(*world, [] { raise(SIGTERM); }), "InterruptedError after 6");  // rank 1 looks before its next one
  return 0;
}
const test::RegisterJob kTrouble("eval_trouble", trouble);

TEST(EvalRanks, AllNumbersAreThoseOfOneProcess) {
  for (const int size : {2, 3}) test::run_job("eval_equal", size);
}

TEST(EvalRanks, WhatStopsOneStopsAll) { test::run_job("eval_trouble", 3); }

}  // namespace
}  // namespace satin::eval
