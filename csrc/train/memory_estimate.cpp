// Legend: M tokens of a micro-batch's context, H hidden, F intermediate, Q query features, KV key features, V
// vocabulary.
#include "train/memory_estimate.h"

#include <cstdio>

#include "core/error.h"
#include "losses/head.h"
#include "train/gradient_penalty.h"
#include "train/models.h"

namespace satin::train {
namespace {

/// Values a token that the wrappers of a layer's linears keep (quant/wrapped_linear.h), by what the default rule says.
int64_t wrapped_values(const config::Quantization& quantization, int64_t h, int64_t f, int64_t q, int64_t kv) {
  const config::QuantizationRule& rule = quantization.default_rule;
  int64_t values = 0;
  if (rule.activations != "none") values += 3 * h;  // q, k, v and gate, up keep an input each, not one for all
  // OneBit: each input before and after its vector, and each output before its norm.
  if (rule.method == "onebit") values += (5 * h + q + f) + (q + 2 * kv + 2 * h + 2 * f);
  return values;
}

int64_t num_parameters(const models::ModelConfig& c) {
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  const int64_t layer = c.hidden_size * (2 * q + 2 * kv + 3 * c.intermediate_size + 2);
  return c.num_layers * layer + c.hidden_size + c.vocab_size * c.hidden_size * (c.tied_embeddings ? 1 : 2);
}

}  // namespace

int64_t MemoryEstimate::total_bytes() const {
  int64_t total = 0;
  for (const auto& [name, bytes] : parts) total += bytes;
  return total;
}

MemoryEstimate estimate_memory(const config::Config& config, const models::Decoder& student,
                               const models::ModelConfig* teacher, at::ScalarType compute_dtype) {
  const models::ModelConfig& c = student.config();
  const auto compute = static_cast<int64_t>(c10::elementSize(compute_dtype));
  const int64_t wide = compute_dtype == at::kDouble ? 8 : 4;  // residual stream, norms, logits
  const bool branches =
      teacher && effective_neighbourhood(config.loss).rate > 0 && config.loss.neighbourhood.placement == "branch";
  const int64_t context_length = config.train.sequence_length * (branches ? 2 : 1);
  const int64_t m = config.train.micro_batch_size * context_length;
  const int64_t h = c.hidden_size, f = c.intermediate_size, v = c.vocab_size;
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;

  int64_t weights = 0, linear_elements = 0;
  for (const auto& parameter : student.parameters().all()) {
    weights += static_cast<int64_t>(parameter.value.nbytes());
    if (parameter.role == nn::Role::kWeight) linear_elements += parameter.value.numel();
  }
  // Kept for backward, a token and layer: the residual stream before both norms, both norms' outputs, rotated q and k,
  // v, the attention's output and logsumexp, and of the MLP gate, up and silu(gate) up.
  const int64_t wrapped = config.quantization ? wrapped_values(*config.quantization, h, f, q, kv) : 0;
  const auto activations_in = [&](int64_t element, int64_t sequences, int64_t length, bool masked) {
    const int64_t rows = sequences * length;
    const int64_t a_layer = wide * 2 * h + element * (2 * h + 2 * q + 2 * kv + 3 * f + wrapped) + 4 * c.num_heads;
    // Every linear keeps its weight in the compute dtype (dequantised, or cast), unless that is the master itself.
    const bool casts = config.quantization || element != wide;
    int64_t bytes = rows * (c.num_layers * a_layer + wide * h + element * h) + (casts ? linear_elements * element : 0);
    if (!config.data.attention_across_documents)
      bytes += rows * length;  // the mask, a byte a pair
    else if (masked)
      bytes += length * length;
    return bytes;
  };
  const int64_t activations = activations_in(compute, config.train.micro_batch_size, context_length, branches);

  const losses::HeadChunks chunks(config.loss.chunk_tokens, m, v, compute_dtype, student.parameters().options().device);
  const int64_t loss =
      chunks.bytes(v, compute_dtype, teacher != nullptr) + v * h * (wide + compute) + m * h * compute * 3;
  // Gradients of one MLP and of the residual stream while the backward passes through a layer.
  const int64_t backward = m * (3 * f * compute + 2 * h * wide) + 3 * h * f * wide;
  MemoryEstimate estimate;
  estimate.parts = {{"weights", weights}, {"gradients", weights}, {"optimizer", 2 * weights}};
  estimate.parts.emplace_back("teacher",
                              teacher ? num_parameters(*teacher) * compute + m * teacher->hidden_size * compute : 0);
  estimate.parts.emplace_back("activations", activations);
  if (config.quantization && config.logging.quantizers_every_n_steps > 0)
    estimate.parts.emplace_back("codes", linear_elements);  // of the last look at the quantizers
  estimate.parts.emplace_back("loss", loss);
  if (config.loss.hidden.weight > 0) {
    // A gradient of each compared layer until the backward; of the layer at hand the teacher's state, both directions
    // and a product. The student's states are among the activations.
    const int64_t layers = config.loss.hidden.layers == "last" ? 1 : c.num_layers;
    estimate.parts.emplace_back("hidden", (layers + 4) * m * h * wide);
  }
  if (const config::GradientPenalty& lgr = config.loss.lgr; penalises(lgr)) {
    // The losses' gradients lie aside, quantized weights have fp32 gradients of their own, and what fp32 activations
    // and their offset take beyond those of the step.
    const int64_t all = config.train.micro_batch_size, length = config.train.sequence_length;
    const int64_t sequences = lgr.sequences > 0 ? std::min(lgr.sequences, all) : all;
    const int64_t passes = activations_in(wide, sequences, length, false) + sequences * length * h * 2 * wide;
    estimate.parts.emplace_back("lgr", weights + (config.quantization ? linear_elements * wide : 0) +
                                           std::max<int64_t>(0, passes - activations));
  }
  estimate.parts.emplace_back("workspace", std::max<int64_t>(0, backward - loss));
  return estimate;
}

std::string memory_text(const MemoryEstimate& estimate) {
  std::string text = "memory on the device\n";
  char line[96];
  const auto add = [&](const std::string& name, int64_t bytes) {
    std::snprintf(line, sizeof line, "  %-12s %10.3f GiB\n", name.c_str(), static_cast<double>(bytes) / (1 << 30));
    text += line;
  };
  for (const auto& [name, bytes] : estimate.parts) add(name, bytes);
  add("total", estimate.total_bytes());
  text.pop_back();
  return text;
}

}  // namespace satin::train
