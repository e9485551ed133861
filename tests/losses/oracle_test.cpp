// Every loss against its definition in 50-digit decimals (oracle.py), on ordinary and on hostile logits.

#include "core/error.h"
#include "losses/cross_entropy.h"
#include "losses/distillation.h"
#include "losses/loss_support.h"
#include "losses/smoothness.h"
#include "support/test_support.h"

namespace satin::losses {
namespace {
using nlohmann::json;

constexpr double kExcluded = -std::numeric_limits<double>::infinity();

struct Logits {
  const char* label;
  at::Tensor student, teacher;
  int64_t num_tokens;
};

std::vector<Logits> hostile_logits() {
  constexpr int64_t N = 2, V = 10;
  auto random = [&](uint64_t seed, double spread) {
    return test::random_logits(N, V, seed, spread).to(at::kFloat).to(at::kDouble);
  };
  std::vector<Logits> all;
  all.push_back({"ordinary", random(1, 2), random(2, 2), 0});
  all.push_back({"padded", random(3, 2), random(4, 2), 8});
  all.push_back({"nearly the teacher", random(5, 3) * (1 + 1.0 / 1024), random(5, 3), 0});
  all.push_back({"sure", random(6, 30), random(7, 30), 0});
  all.push_back({"huge", random(8, 1e4), random(9, 1e4), 0});
  all.push_back({"equal teacher", random(10, 2), at::zeros({N, V}, at::kDouble), 0});
  at::Tensor one_hot = at::zeros({N, V}, at::kDouble);
  one_hot.select(1, 4).fill_(1e4);
  all.push_back({"one-hot teacher", random(11, 2), one_hot, 0});
  at::Tensor s = random(12, 2), z = random(13, 2);
  for (auto* x : {&s, &z}) x->narrow(1, 6, 2).fill_(kExcluded);
  all.push_back({"excluded in both", s, z, 0});
  at::Tensor some = random(14, 2);
  some.narrow(1, 2, 6).fill_(kExcluded);
  all.push_back({"excluded by the teacher", random(15, 2), some, 0});
  return all;
}

json to_json(const at::Tensor& x) {
  json rows = json::array();
  for (int64_t n = 0; n < x.size(0); ++n) {
    json row = json::array();
    for (int64_t v = 0; v < x.size(1); ++v) {
      const double value = x[n][v].item<double>();
      row.push_back(value == kExcluded ? json(nullptr) : json(value));
    }
    rows.push_back(row);
  }
  return rows;
}

TEST(Oracle, ValuesAndGradientsOnHostileLogits) {
  json cases = json::array();
  std::vector<std::pair<std::shared_ptr<LogitLoss>, Logits>> ours;
  for (const Logits& l : hostile_logits()) {
    auto add = [&](std::shared_ptr<LogitLoss> loss, const char* name, double temperature, int64_t k) {
      cases.push_back({{"loss", name},
                       {"temperature", temperature},
                       {"top_k", k},
                       {"num_tokens", l.num_tokens},
                       {"share", 0.25},
                       {"student", to_json(l.student)},
                       {"teacher", to_json(l.teacher)},
                       {"targets", {0, 9}}});
      ours.emplace_back(loss, l);
    };
    add(std::make_shared<CrossEntropy>(), "ce", 1, 1);
    add(std::make_shared<Distillation>(2), "forward", 2, 1);
    add(std::make_shared<Distillation>(2, 0.0), "reverse", 2, 1);
    add(std::make_shared<Distillation>(2, 0.25), "cakld", 2, 1);
    add(std::make_shared<Distillation>(2, 0.25, ops::Divergence::kJensenShannon), "jsd", 2, 1);
    for (int64_t k : {1, 5, 9, 10}) add(std::make_shared<Smoothness>(k, 2, l.num_tokens), "smoothness", 2, k);
  }
  test::TempDir dir;
  test::write_file(dir / "cases.json", cases.dump());
  auto python =
      test::run_python("losses/oracle.py " + (dir / "cases.json").string() + " " + (dir / "results.json").string());
  ASSERT_EQ(python.exit_code, 0) << python.output;
  const json results = json::parse(test::read_file(dir / "results.json"));
  ASSERT_EQ(results.size(), ours.size());

  for (size_t i = 0; i < ours.size(); ++i) {
    const auto& [loss, l] = ours[i];
    for (auto dtype : {at::kDouble, at::kFloat}) {
      SCOPED_TRACE(cat(l.label, ": ", cases[i]["loss"], " k ", cases[i]["top_k"], " ", dtype));
      const double tolerance = dtype == at::kDouble ? 1e-13 : 4e-6;
      for (int64_t n = 0; n < 2; ++n) {
        at::Tensor weights = at::zeros({2}, dtype);
        weights[n] = 1;
        auto [value, grad] =
            test::evaluate(*loss, {l.student.to(dtype), l.teacher.to(dtype), at::tensor({0, 9}, at::kLong), weights});
        if (results[i]["values"][n].is_string()) {
          EXPECT_EQ(value.item<double>(), std::numeric_limits<double>::infinity());
          continue;
        }
        const double want = results[i]["values"][n];
        EXPECT_NEAR(value.item<double>(), want, tolerance * std::max(1.0, std::abs(want)));
        for (int64_t v = 0; v < grad.size(1); ++v) {
          const double want_slope = results[i]["gradients"][n][v];
          EXPECT_NEAR(grad[n][v].item<double>(), want_slope, tolerance * std::max(1.0, std::abs(want)))
              << n << "," << v;
        }
      }
    }
  }
}

}  // namespace
}  // namespace satin::losses
