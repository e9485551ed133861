// Legend: N out_features and K in_features of a linear, M tokens of a batch, H hidden, V vocabulary.
#include "train/quantize_memory.h"

#include <algorithm>

#include "losses/head.h"
#include "ptq/quantize_blocks.h"

namespace satin::train {
namespace {

using Linears = std::vector<quant::QuantLinear*>;

struct Sizes {
  int64_t wide, compute;  ///< bytes of a statistic and of a value in the compute dtype
  int64_t weights, stream, batch_tokens;
};

/// What a block's moments of inputs take: while they are summed (a sum an input, and then a mean a linear), and after.
struct Moments {
  int64_t summing = 0, kept = 0;
};

int64_t in_features(const quant::QuantLinear& linear) { return linear.master_weight().size(1); }

int64_t weights_of_block(const Linears& linears) {
  int64_t count = 0;
  for (const auto* linear : linears) count += linear->out_features() * in_features(*linear);
  return count;
}

Moments moments_of(const config::Ptq& ptq, const Linears& linears, int64_t wide) {
  Moments found;
  for (const Linears& stage : ptq::in_stages(linears)) {
    const int64_t matrix = in_features(*stage.front()) * in_features(*stage.front()) * wide;
    const auto count = static_cast<int64_t>(stage.size());
    const Moments of{(1 + count) * matrix, count * matrix};
    if (ptq::by_stages(ptq))
      found = {std::max(found.summing, of.summing), std::max(found.kept, of.kept)};
    else
      found = {found.summing + of.summing, found.kept + of.kept};
  }
  return found;
}

/// A batch in the backward pass: the streams before all blocks, and then one block's graph or the head's.
int64_t backward_bytes(const config::Config& config, const models::ModelConfig& c, const Sizes& sizes,
                       const Linears& linears, const losses::HeadChunks& chunks, at::ScalarType compute_dtype) {
  const int64_t m = sizes.batch_tokens, h = c.hidden_size, v = c.vocab_size;
  const int64_t block = m * activation_bytes_a_layer(config, c, sizes.compute, sizes.wide) +
                        weights_of_block(linears) * sizes.compute + m * 3 * c.intermediate_size * sizes.compute;
  const int64_t head = v * h * (sizes.wide + sizes.compute) + m * h * (2 * sizes.compute + sizes.wide) +
                       chunks.bytes(v, compute_dtype, /*with_teacher=*/false);
  return (c.num_layers + 1) * m * h * sizes.wide + std::max(block, head);
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
int64_t training_bytes(const config::Config& config, const models::ModelConfig& c, const Sizes& sizes,
                       const Linears& linears) {
  const config::Ptq& ptq = config.ptq;
  const bool with_gradients = ptq.gradient_ratio > 0;
  const int64_t element = with_gradients ? sizes.wide : sizes.compute;
  const int64_t tokens = ptq.batch_size * config.train.sequence_length;
  const int64_t graph = tokens * activation_bytes_a_layer(config, c, element, sizes.wide) * (with_gradients ? 3 : 1);
  const int64_t learned = ptq.method == "block_ap" ? 4 * weights_of_block(linears) * sizes.wide : 0;
  return graph + learned + weights_of_block(linears) * (element + sizes.wide);
}

}  // namespace

MemoryEstimate estimate_quantize_memory(const config::Config& config, const Student& student,
                                        at::ScalarType compute_dtype, at::Device device) {
  const config::Ptq& ptq = config.ptq;
  const models::ModelConfig& c = student.decoder->config();
  const int64_t sequences = config.quantization->calibration_sequences, length = config.train.sequence_length;
  Sizes sizes{};
  sizes.wide = compute_dtype == at::kDouble ? 8 : 4;
  sizes.compute = static_cast<int64_t>(c10::elementSize(compute_dtype));
  for (const nn::Parameter& parameter : student.decoder->parameters().all())
    sizes.weights += static_cast<int64_t>(parameter.value.nbytes());
  sizes.stream = ptq.keep_on_host ? 0 : sequences * length * c.hidden_size * sizes.wide;
  sizes.batch_tokens = std::min(config.train.micro_batch_size, sequences) * length;
  const auto blocks = ptq::linears_of_blocks(*student.registry, c.num_layers);

  std::vector<MemoryEstimate> phases;
  const auto add = [&](int64_t streams, int64_t moments, int64_t batch, int64_t work) {
    phases.push_back(
        {{{"weights", sizes.weights}, {"streams", streams}, {"moments", moments}, {"batch", batch}, {"work", work}}});
  };
  const bool walks = ptq::walks_blocks(ptq), trains = ptq::trains_blocks(ptq);
  const int64_t streams = walks ? (trains ? 2 : 1) * sizes.stream : 0;  // full precision's too
  const int64_t forward =
      walks ? sizes.batch_tokens * activation_bytes_a_layer(config, c, sizes.compute, sizes.wide) : 0;
  add(streams + (walks ? sizes.stream : 0), 0, forward, 0);  // going on to the next block
  int64_t gradients = 0;                                     // of the block that has most
  for (const Linears& linears : blocks) {
    int64_t work = trains ? training_bytes(config, c, sizes, linears) : 0;
    if (!trains)
      for (const auto* linear : linears) work = std::max(work, layer_bytes(ptq, *linear, sizes.wide));
    const int64_t originals = walks ? weights_of_block(linears) * sizes.wide : 0;
    if (ptq.method == "awq") work += originals;  // rounded, on the inputs as they were
    const Moments moments = walks ? moments_of(ptq, linears, sizes.wide) : Moments{};
    add(streams, moments.summing, forward, originals);
    add(streams, moments.kept, 0, originals + work);
    gradients = std::max(gradients, ptq::gradient_bytes(linears, sizes.wide));
  }
  if (ptq::needs_gradients(ptq)) {
    const losses::HeadChunks chunks(0, sizes.batch_tokens, c.vocab_size, compute_dtype, device);
    const int64_t a_pass = std::min(c.num_layers, ptq::blocks_a_pass(blocks, sizes.wide, ptq::kGradientMomentsBytes));
    const auto& widest = *std::ranges::max_element(blocks, {}, weights_of_block);
    add(trains && ptq.gradient_ratio > 0 ? (a_pass + 1) * sizes.stream : 0, a_pass * gradients,
        backward_bytes(config, c, sizes, widest, chunks, compute_dtype), 0);
  }
  return *std::ranges::max_element(phases, {}, &MemoryEstimate::total_bytes);
}

}  // namespace satin::train
