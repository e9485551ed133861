// Legend: S streams' bytes, N out_features and K in_features of a linear, M tokens of a batch, H hidden, V vocabulary.
#include "train/quantize_memory.h"

#include <algorithm>

#include "losses/head.h"
#include "ptq/quantize_blocks.h"

namespace satin::train {
namespace {

struct Shapes {
  int64_t wide, compute;  ///< bytes of a statistic and of a value in the compute dtype
  int64_t weights, stream, batch_tokens, block_elements = 0, widest_input = 0, gradient_moments = 0;
  std::vector<quant::QuantLinear*> linears;  ///< of a block
};

int64_t in_features(const quant::QuantLinear& linear) { return linear.master_weight().size(1); }

/// A batch in the backward pass: the streams before all blocks, and then one block's graph or the head's.
int64_t backward_bytes(const config::Config& config, const models::ModelConfig& c, const Shapes& shapes,
                       const losses::HeadChunks& chunks, at::ScalarType compute_dtype) {
  const int64_t m = shapes.batch_tokens, h = c.hidden_size, v = c.vocab_size;
  const int64_t block = m * activation_bytes_a_layer(config, c, shapes.compute, shapes.wide) +
                        shapes.block_elements * shapes.compute + m * 3 * c.intermediate_size * shapes.compute;
  const int64_t head = v * h * (shapes.wide + shapes.compute) + m * h * (2 * shapes.compute + shapes.wide) +
                       chunks.bytes(v, compute_dtype, /*with_teacher=*/false);
  return (c.num_layers + 1) * m * h * shapes.wide + std::max(block, head);
}

/// What rounding `linear` takes at its peak.
int64_t layer_bytes(const config::Ptq& ptq, const quant::QuantLinear& linear, int64_t wide) {
  const int64_t n = linear.out_features(), k = in_features(linear), weight = n * k * wide;
  if (ptq.method == "gptq")  // factors in fp64 before the columns are walked, or the columns
    return std::max(5 * k * k * int64_t{8}, k * k * wide + 5 * weight);
  if (ptq.method == "lwc") return 8 * weight + (ptq.gradient_ratio > 0 ? n * n * wide : 0);
  return 5 * weight;
}

/// What training a block takes: its graph (with LGP three more passes, in fp32), the optimizer, gradients, copies.
int64_t training_bytes(const config::Config& config, const models::ModelConfig& c, const Shapes& shapes) {
  const config::Ptq& ptq = config.ptq;
  const bool with_gradients = ptq.gradient_ratio > 0;
  const int64_t element = with_gradients ? shapes.wide : shapes.compute;
  const int64_t tokens = ptq.batch_size * config.train.sequence_length;
  const int64_t graph = tokens * activation_bytes_a_layer(config, c, element, shapes.wide) * (with_gradients ? 3 : 1);
  const int64_t learned = ptq.method == "block_ap" ? 4 * shapes.block_elements * shapes.wide : 0;
  return graph + learned + shapes.block_elements * (element + shapes.wide);
}

}  // namespace

MemoryEstimate estimate_quantize_memory(const config::Config& config, const Student& student,
                                        at::ScalarType compute_dtype, at::Device device) {
  const config::Ptq& ptq = config.ptq;
  const models::ModelConfig& c = student.decoder->config();
  const int64_t sequences = config.quantization->calibration_sequences, length = config.train.sequence_length;
  Shapes shapes{};
  shapes.wide = compute_dtype == at::kDouble ? 8 : 4;
  shapes.compute = static_cast<int64_t>(c10::elementSize(compute_dtype));
  for (const nn::Parameter& parameter : student.decoder->parameters().all())
    shapes.weights += static_cast<int64_t>(parameter.value.nbytes());
  shapes.stream = ptq.keep_on_host ? 0 : sequences * length * c.hidden_size * shapes.wide;
  shapes.batch_tokens = std::min(config.train.micro_batch_size, sequences) * length;
  for (const auto* module : student.registry->in_block(0)) shapes.linears.push_back(module->linear);
  for (const auto* linear : shapes.linears) {
    shapes.block_elements += linear->out_features() * in_features(*linear);
    shapes.widest_input = std::max(shapes.widest_input, in_features(*linear));
  }
  const losses::HeadChunks chunks(0, shapes.batch_tokens, c.vocab_size, compute_dtype, device);

  const bool trains = ptq::trains_blocks(ptq);
  const int64_t streams = (trains ? 2 : 1) * shapes.stream;  // full precision's too
  const int64_t moments = shapes.widest_input * shapes.widest_input * shapes.wide;
  const int64_t forward = shapes.batch_tokens * activation_bytes_a_layer(config, c, shapes.compute, shapes.wide);
  const int64_t originals = shapes.block_elements * shapes.wide;
  int64_t work = 0;
  if (trains) {
    work = training_bytes(config, c, shapes);
  } else {
    for (const auto* linear : shapes.linears) work = std::max(work, layer_bytes(ptq, *linear, shapes.wide));
  }
  const auto phase = [&](int64_t of_streams, int64_t of_moments, int64_t batch, int64_t of_work) {
    return MemoryEstimate{{{"weights", shapes.weights},
                           {"streams", of_streams},
                           {"moments", of_moments},
                           {"batch", batch},
                           {"work", of_work}}};
  };
  std::vector<MemoryEstimate> phases{phase(streams, 2 * moments, forward, originals),  // summing moments of inputs
                                     phase(streams, moments, 0, originals + work),     // rounding
                                     phase(streams + shapes.stream, 0, forward, 0)};   // going to the next block
  if (ptq::needs_gradients(ptq)) {
    const int64_t a_pass =
        std::min(c.num_layers, ptq::blocks_a_pass({shapes.linears}, shapes.wide, ptq::kGradientMomentsBytes));
    phases.push_back(phase(trains && ptq.gradient_ratio > 0 ? (a_pass + 1) * shapes.stream : 0,
                           a_pass * ptq::gradient_bytes(shapes.linears, shapes.wide),
                           backward_bytes(config, c, shapes, chunks, compute_dtype), 0));
  }
  return *std::ranges::max_element(phases, {}, &MemoryEstimate::total_bytes);
}

}  // namespace satin::train
