// Quantization-aware training from C++: a random 2-layer model, 2-bit weights, a few steps of distillation.
#include <ATen/ATen.h>
#include <models/decoder.h>
#include <optim/adamw.h>
#include <quant/registry.h>
#include <train/step.h>

#include <cstdio>

using namespace satin;

int main() {
  models::ModelConfig shape;
  shape.model_type = "llama";
  shape.vocab_size = 64;
  shape.hidden_size = shape.intermediate_size = 64;
  shape.num_layers = 2;
  shape.num_heads = shape.num_kv_heads = 2;
  shape.head_dim = 32;
  shape.max_position_embeddings = 128;
  shape.rms_norm_eps = 1e-5;
  shape.initializer_range = 0.2;
  shape.tied_embeddings = true;

  nn::BuildOptions options;
  models::Decoder teacher(shape, nn::dense_linear_factory(), options);
  models::initialise_randomly(teacher, 1);

  config::Quantization quantization;  // lsq_asymmetric, 2 bits, groups of 64
  quant::Registry registry;
  options.trainable = true;
  models::Decoder student(shape, quant::quant_linear_factory(quant::Policy(quantization), registry), options);
  models::initialise_randomly(student, 1);
  quant::initialise_from_weights(registry);

  config::Loss loss;  // KD at neighbours
  const losses::Objective objective(loss);
  const losses::Neighbourhood neighbourhood(loss.neighbourhood, 64, {}, 0, 256);
  train::TrainingStep step(student, registry, &teacher, objective, neighbourhood, {.chunk_tokens = 256});
  config::Optimizer recipe;
  recipe.learning_rate = 3e-3;
  optim::AdamW optimizer(student.parameters().all(), recipe);

  double first = 0, last = 0;
  for (int i = 0; i < 30; ++i) {
    data::Batch batch;
    batch.tokens = at::randint(64, {4, 32}, at::kLong);
    batch.loss_mask = at::ones({4, 32}, at::kBool);
    batch.loss_mask.select(1, 31).fill_(false);
    for (uint64_t b = 0; b < 4; ++b) batch.sample_ids.push_back(4 * i + b);
    const double kd = step.run({batch}, i / 30.0).total.item<double>();
    optimizer.step(1);
    optimizer.zero_grad();
    if (i == 0) first = kd;
    last = kd;
  }
  std::printf("distillation loss %.4f -> %.4f over 30 steps of 2-bit training\n", first, last);
  return last < first ? 0 : 1;
}
