// Smoothness and robustness of students rounded to 3 bits beside their teachers, against brute force with transformers
// (fp64, the largest in fp32): a random model with a padded vocabulary, the shipped tiny teacher, and (with ../shared)
// the real one.
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "eval/corpus.h"
#include "eval/robustness.h"
#include "eval/smoothness.h"
#include "io/pretrained.h"
#include "support/test_support.h"

namespace satin::eval {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

enum class Kind { kRandom, kShipped, kBooks };
void PrintTo(Kind kind, std::ostream* out) {
  *out << (kind == Kind::kRandom ? "random" : kind == Kind::kShipped ? "shipped" : "books");
}

class Oracle : public testing::TestWithParam<Kind> {
 protected:
  test::TempDir dir;
  fs::path teacher_path;
  std::vector<int32_t> tokens, special_ids;
  int64_t length = 128, num_windows = 3, num_tokens = 0, num_roots = 8;
  std::unique_ptr<models::Decoder> student, teacher;

  void SetUp() override {
    SATIN_NEEDS_PYTHON("transformers");
    if (GetParam() == Kind::kBooks) SATIN_NEEDS_SHARED();
    if (GetParam() == Kind::kRandom) {
      make_students("");
      teacher_path = dir / "teacher";
      length = 24, num_windows = 5, num_roots = 64, num_tokens = 90, special_ids = {0, 1, 2};  // 7 ids are padding
      for (int64_t i = 0; i < length * num_windows; ++i) tokens.push_back(static_cast<int32_t>(i * i * 7 + i) % 90);
    } else {
      const fs::path quick = test::source_dir() / "configs/quickstart";
      if (GetParam() == Kind::kBooks) num_windows = 2, num_roots = 4;
      teacher_path = GetParam() == Kind::kShipped ? quick / "teacher" : test::shared_dir() / "models/books-29m";
      make_students(teacher_path.string());
      const auto tokenizer = tokenizer::Tokenizer::load(teacher_path);
      config::DataSource text;
      text.path =
          GetParam() == Kind::kShipped ? quick / "text/valid.jsonl" : test::shared_dir() / "data/books-valid.jsonl";
      tokens = read_tokens(text, tokenizer, length * num_windows);
      num_tokens = tokenizer.vocab_size();
      special_ids = tokenizer.special_ids();
    }
    tokens.resize(length * num_windows);
    // As the brute force: in fp32 tokens that are almost as likely as each other may change places.
    nn::BuildOptions options;
    if (GetParam() != Kind::kBooks) options.master_dtype = options.compute_dtype = at::kDouble;
    student = io::load_pretrained(dir / "student", nn::dense_linear_factory(), options);
    teacher = io::load_pretrained(teacher_path, nn::dense_linear_factory(), options);
  }

  void make_students(const std::string& of) {
    const auto made = test::run_python("eval/students.py " + dir.path().string() + " " + of);
    ASSERT_EQ(made.exit_code, 0) << made.output;
  }
  json ask(const json& roots) {
    const json roles = {{"student", (dir / "student").string()},
                        {"teacher", teacher_path.string()},
                        {"dtype", GetParam() == Kind::kBooks ? "float32" : "float64"},
                        {"tokens", tokens},
                        {"length", length},
                        {"num_tokens", num_tokens},
                        {"special_ids", special_ids},
                        {"seed", 11},
                        {"roots", roots}};
    test::write_file(dir / "roles.json", roles.dump());
    const auto made = test::run_python("eval/comparison_oracle.py " + (dir / "roles.json").string() + " " +
                                       (dir / "out.json").string());
    EXPECT_EQ(made.exit_code, 0) << made.output;
    return made.exit_code == 0 ? json::parse(test::read_file(dir / "out.json")) : json();
  }
};

/// Four digits and more.
void expect_close(const json& found, const json& want, const std::string& what) {
  ASSERT_TRUE(found.is_number() && want.is_number()) << what << " " << found << " " << want;
  EXPECT_NEAR(found.get<double>(), want.get<double>(), 2e-5 * std::abs(want.get<double>()) + 1e-9) << what;
}

void expect_smoothness(const json& found, const json& want) {
  for (const char* who : {"student", "teacher"}) {
    const json& w = want[who];
    for (const char* place : {"x0", "x1"}) {
      const json& norms = found["gradient_norm"][place];
      for (const char* number : {"C_avg", "C_lower", "p50", "p99"})
        expect_close(norms[number][who], w[place][number], cat(who, " ", place, " ", number));
      EXPECT_EQ(norms["histogram_log10"][who], w[place]["histogram"]) << who << " " << place;
    }
    for (size_t k = 0; k < 40; ++k) expect_close(found["neighbour_nll"][who][k], w["D"][k], cat(who, " D_", k + 1));
    const char* thetas[] = {"1e-2", "1e-3", "0.05_max"};
    for (size_t i = 0; i < 3; ++i)
      expect_close(found["effective_candidates"][thetas[i]][who], w["effective"][i], cat(who, " ", thetas[i]));
    expect_close(found["entropy"][who], w["entropy"], "entropy");
    expect_close(found["exp_entropy"][who], std::exp(w["entropy"].get<double>()), "exp entropy");
    expect_close(found["nucleus_size_0.9"][who], w["nucleus"], "nucleus");
    expect_close(found["mass_on_teacher_top_40"][who], w["mass"], "mass");
    for (const char* depth : {"depth_4", "depth_8"})
      for (const char* number : {"mean_size", "mean_log1p_size"})
        expect_close(found["decoding_tree"][depth][number][who], w[depth][number], cat(who, " ", depth, " ", number));
    for (size_t depth = 1; depth <= 8; ++depth)
      for (const char* number : {"mean_size", "mean_log1p_size"})
        expect_close(found["decoding_tree"]["by_depth"][number][who][depth - 1], w[cat("depth_", depth)][number],
                     cat(who, " depth ", depth, " ", number));
    expect_close(found["neighbour_nll"]["slope"][who],
                 (w["D"][39].get<double>() - w["D"][0].get<double>()) / std::log(40.0), "slope");
  }
}

void expect_robustness(const json& found, const json& want) {
  const auto expect_perplexity = [&](const json& numbers, const std::string& metric) {
    for (const char* who : {"student", "teacher", "difference"}) {
      const std::string name = who == std::string("difference") ? "ratio" : who;
      const json& w = want[cat(who, " ", metric)];
      expect_close(numbers[name], std::exp(w[0].get<double>()), cat(name, " ", metric));
      for (size_t side : {0, 1})
        expect_close(numbers[name + "_ci95"][side], std::exp(w[1 + side].get<double>()),
                     cat(name, " interval ", metric));
    }
  };
  expect_perplexity(found["perplexity"], "clean");
  for (const json& numbers : found["token_substitution"]) expect_perplexity(numbers, "rate " + numbers["rate"].dump());
  for (const json& numbers : found["embedding_noise"])
    expect_perplexity(numbers, "strength " + numbers["strength"].dump());
  const auto expect_share = [&](const json& numbers, const char* who, const json& w) {
    expect_close(numbers[who], w[0], who);
    for (size_t side : {0, 1}) expect_close(numbers[cat(who, "_ci95")][side], w[1 + side], who);
  };
  expect_share(found["flips_after_one_token"], "student", want["student flips"]);
  expect_share(found["flips_after_one_token"], "teacher", want["teacher flips"]);
  expect_share(found["agreement"]["clean"], "student", want["agreement"]);
  expect_share(found["agreement"]["after_no_wrong_token"], "student", want["agreement right"]);
  expect_share(found["agreement"]["after_one_token"], "student", want["agreement after"]);
}

TEST_P(Oracle, AgreesOnEveryNumber) {
  const Smoothness smooth = smoothness(*student, teacher.get(), tokens,
                                       {.sequence_length = length,
                                        .num_tokens = num_tokens,
                                        .num_roots = num_roots,
                                        .seed = 5,
                                        .batch_tokens = 2 * length,
                                        .chunk_tokens = 50});
  const Robustness robust = robustness(*student, teacher.get(), tokens,
                                       {.sequence_length = length,
                                        .num_tokens = num_tokens,
                                        .special_ids = special_ids,
                                        .seed = 11,
                                        .score = {.batch_tokens = 2 * length, .chunk_tokens = 50}});
  const json roots = dump_roots(smooth);
  ASSERT_EQ(roots["roots"].size(), static_cast<size_t>(num_roots));
  const json want = ask(roots);
  ASSERT_TRUE(want.is_object());
  expect_smoothness(to_json(smooth, *student, ""), want["smoothness"]);
  expect_robustness(to_json(robust, *student, ""), want["robustness"]);
}

INSTANTIATE_TEST_SUITE_P(, Oracle, testing::Values(Kind::kRandom, Kind::kShipped, Kind::kBooks));

}  // namespace
}  // namespace satin::eval
