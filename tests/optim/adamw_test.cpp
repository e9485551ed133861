#include "optim/adamw.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "optim/clip.h"
#include "support/test_support.h"

namespace satin::optim {
namespace {
using nlohmann::json;

const std::map<std::string, nn::Role> kRoles = {{"weight", nn::Role::kWeight}, {"embedding", nn::Role::kEmbedding},
                                                {"norm", nn::Role::kNorm},     {"bias", nn::Role::kBias},
                                                {"scale", nn::Role::kScale},   {"zero_point", nn::Role::kZeroPoint}};

at::Tensor tensor_of(const json& values, at::IntArrayRef shape, at::ScalarType dtype = at::kDouble) {
  return at::tensor(values.get<std::vector<double>>(), at::kDouble).reshape(shape).to(dtype);
}

double largest_difference(const at::Tensor& a, const json& values) {
  return (a.detach().to(at::kDouble) - tensor_of(values, a.sizes())).abs().max().item<double>();
}

/// What torch.optim.AdamW did (one Python process for all tests).
const json& recorded_steps() {
  static const json record = [] {
    test::TempDir dir;
    const auto result = test::run_python("optim/adamw_oracle.py " + (dir / "steps.json").string());
    if (result.exit_code != 0) throw std::runtime_error(result.output);
    return json::parse(test::read_file(dir / "steps.json"));
  }();
  return record;
}

/// The recorded steps, and this optimizer over the same parameters.
struct Replay {
  const json& record;
  std::vector<nn::Parameter> parameters;
  config::Optimizer options;

  explicit Replay(at::ScalarType dtype) : record(recorded_steps()) {
    const json& o = record["options"];
    options.learning_rate = o["learning_rate"];
    options.scale_learning_rate = o["scale_learning_rate"];
    options.zero_point_learning_rate = o["zero_point_learning_rate"];
    options.weight_decay = o["weight_decay"];
    options.beta1 = o["beta1"];
    options.beta2 = o["beta2"];
    options.epsilon = o["epsilon"];
    for (const auto& [name, p] : record["parameters"].items())
      parameters.push_back({name,
                            tensor_of(p["initial"], p["shape"].get<std::vector<int64_t>>(), dtype).requires_grad_(),
                            kRoles.at(p["role"])});
  }

  void set_gradients(const json& step) {
    for (nn::Parameter& p : parameters) {
      p.value.mutable_grad().reset();
      if (step["gradients"].contains(p.name))
        p.value.mutable_grad() = tensor_of(step["gradients"][p.name], p.value.sizes(), p.value.scalar_type());
    }
  }

  void step(AdamW& optimizer, size_t i) {
    const json& step = record["steps"][i];
    set_gradients(step);
    optimizer.step(step["multiplier"], clip_factors(gradient_norms(parameters), record["max_norm"]));
  }
  size_t num_steps() const { return record["steps"].size(); }
};

TEST(AdamW, AgreesWithPyTorch) {
  SATIN_NEEDS_PYTHON("torch");
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-13}, std::pair{at::kFloat, 2e-6}}) {
    Replay replay(dtype);
    AdamW optimizer(replay.parameters, replay.options);
    for (size_t i = 0; i < replay.num_steps(); ++i) {
      replay.step(optimizer, i);
      for (const nn::Parameter& p : replay.parameters)
        EXPECT_LE(largest_difference(p.value, replay.record["steps"][i]["values"][p.name]), tolerance)
            << p.name << " after step " << i << " in " << dtype;
    }
    for (const auto& [name, tensor] : optimizer.state()) {
      const size_t dot = name.rfind('.');
      EXPECT_LE(largest_difference(tensor, replay.record["state"][name.substr(0, dot)][name.substr(dot + 1)]),
                tolerance)
          << name;
    }
  }
}

TEST(AdamW, ResumesBitForBit) {
  SATIN_NEEDS_PYTHON("torch");
  Replay whole(at::kFloat), first(at::kFloat), second(at::kFloat);
  AdamW a(whole.parameters, whole.options), b(first.parameters, first.options);
  for (size_t i = 0; i < whole.num_steps(); ++i) whole.step(a, i);
  for (size_t i = 0; i < 4; ++i) first.step(b, i);

  std::map<std::string, at::Tensor> saved;
  for (const auto& [name, tensor] : b.state()) saved[name] = tensor.clone();
  for (size_t p = 0; p < second.parameters.size(); ++p)
    second.parameters[p].value.detach().copy_(first.parameters[p].value.detach());
  AdamW c(second.parameters, second.options);
  c.load_state([&](const std::string& name) { return saved.at(name); });
  for (size_t i = 4; i < second.num_steps(); ++i) second.step(c, i);
  for (size_t p = 0; p < whole.parameters.size(); ++p)
    EXPECT_TRUE(at::equal(whole.parameters[p].value, second.parameters[p].value)) << whole.parameters[p].name;
}

nn::Parameter parameter(const std::string& name, at::Tensor value, nn::Role role = nn::Role::kWeight) {
  return {name, std::move(value).requires_grad_(), role};
}

TEST(AdamW, SkippedStepChangesNothing) {
  const nn::Parameter p = parameter("w", at::ones({4, 4}));
  AdamW optimizer({p}, {});
  const auto step = [&](const at::Tensor& gradient) {
    p.value.mutable_grad() = gradient;
    optimizer.step(1, {}, non_finite(gradient_norms({p})));
  };
  step(at::full({4, 4}, 0.5));
  std::vector<at::Tensor> before = {p.value.detach().clone()};
  for (const auto& [name, tensor] : optimizer.state()) before.push_back(tensor.clone());
  at::Tensor bad = at::full({4, 4}, 0.5);
  bad[2][1] = std::nan("");
  step(bad);
  EXPECT_TRUE(at::equal(before[0], p.value));
  for (size_t i = 0; i < optimizer.state().size(); ++i)
    EXPECT_TRUE(at::equal(before[i + 1], optimizer.state()[i].second));
  step(at::full({4, 4}, 0.5));
  EXPECT_FALSE(at::equal(before[0], p.value));
}

TEST(AdamW, GradientOfAnotherLayout) {
  const nn::Parameter a = parameter("a", at::zeros({3, 5})), b = parameter("b", at::zeros({3, 5}));
  const at::Tensor gradient = at::randn({5, 3}).t();
  a.value.mutable_grad() = gradient;
  b.value.mutable_grad() = gradient.contiguous();
  AdamW({a}, {}).step(1);
  AdamW({b}, {}).step(1);
  EXPECT_TRUE(at::equal(a.value, b.value));
}

TEST(AdamW, FrozenParametersHaveNoState) {
  const nn::Parameter frozen{"frozen", at::ones({2}), nn::Role::kNorm};
  const nn::Parameter trained = parameter("trained", at::ones({6}), nn::Role::kNorm);
  AdamW optimizer({frozen, trained}, {});
  ASSERT_EQ(optimizer.state().size(), 3u);
  EXPECT_EQ(optimizer.state()[0].first, "trained.exp_avg");
  EXPECT_EQ(optimizer.state()[1].first, "trained.exp_avg_sq");
  EXPECT_EQ(optimizer.state()[2].first, "trained.step");
  EXPECT_EQ(optimizer.state_bytes(), 2 * 6 * 4 + 4);
  trained.value.mutable_grad() = at::ones({6});
  optimizer.zero_grad();
  EXPECT_FALSE(trained.value.grad().defined());
}

TEST(AdamW, NamesStateThatDoesNotFit) {
  AdamW optimizer({parameter("w", at::ones({4, 2})), parameter("v", at::ones({3}))}, {});
  try {
    optimizer.load_state([](const std::string& name) {
      if (name == "w.exp_avg") return at::Tensor();
      if (name == "v.exp_avg_sq") return at::zeros({5});
      if (name.ends_with(".step")) return at::zeros({});
      return name[0] == 'w' ? at::ones({4, 2}) : at::ones({3});
    });
    FAIL() << "accepted";
  } catch (const UserError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("w.exp_avg: missing"), std::string::npos) << message;
    EXPECT_NE(message.find("v.exp_avg_sq: expected shape [3], found [5]"), std::string::npos) << message;
  }
  for (const auto& [name, tensor] : optimizer.state()) EXPECT_EQ(tensor.abs().max().item<double>(), 0) << name;
}

}  // namespace
}  // namespace satin::optim
