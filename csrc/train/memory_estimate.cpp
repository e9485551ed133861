// Legend: M tokens of a micro-batch's context, H hidden, F intermediate, Q query features, KV key features, V
// vocabulary.
#include "train/memory_estimate.h"

#include <cstdio>
#include <map>

#include "core/error.h"
#include "losses/head.h"
#include "nn/visibility.h"
#include "quant/held_weights.h"
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

}  // namespace

int64_t activation_bytes_a_layer(const config::Config& config, const models::ModelConfig& c, int64_t element_size,
                                 int64_t wide) {
  const int64_t h = c.hidden_size, f = c.intermediate_size;
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  const int64_t wrapped = config.quantization ? wrapped_values(*config.quantization, h, f, q, kv) : 0;
  return wide * 2 * h + element_size * (2 * h + 2 * q + 2 * kv + 3 * f + wrapped) + 4 * c.num_heads;
}

namespace {

int64_t layer_parameters(const models::ModelConfig& c) {
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  return c.hidden_size * (2 * q + 2 * kv + 3 * c.intermediate_size + 2);
}

/// In the compute dtype: all of it, or its own rows and two blocks whole (the one in use and the next).
int64_t teacher_elements(const models::ModelConfig& c, const Layout& layout) {
  const int64_t blocks = c.num_layers * layer_parameters(c);
  const int64_t rest = c.hidden_size + c.vocab_size * c.hidden_size * (c.tied_embeddings ? 1 : 2);
  if (!layout.splits_teacher()) return blocks + rest;
  const int64_t shards = layout.num_shards();
  return (blocks + shards - 1) / shards + std::min<int64_t>(c.num_layers, 2) * layer_parameters(c) + rest;
}

/// A process's part of a student.
struct Owned {
  int64_t masters = 0;          ///< bytes of parameters, those on every process included
  int64_t whole = 0;            ///< bytes of whole copies beside them
  int64_t rest = 0;             ///< bytes of what is no linear's weight in a block and no quantizer's, whole
  int64_t linear_elements = 0;  ///< of linears' weights in the compute dtype, whole
  int64_t in_blocks = 0;        ///< of those without the head, ...
  int64_t num_in_blocks = 0;    ///< ... and how many linears
  int64_t gathered = 0;         ///< of those that are gathered by block; of them ...
  int64_t own = 0;              ///< ... its own rows, and ...
  int64_t widest_block = 0;     ///< ... the largest block
  int64_t outside = 0;          ///< gathered and in no block (a quantized head), in fp32: whole, and ...
  int64_t outside_own = 0;      ///< ... its own rows

  explicit Owned(const nn::ParameterStore& store) {
    std::map<int64_t, int64_t> blocks;
    for (const nn::Parameter& parameter : store.all()) {
      masters += static_cast<int64_t>(parameter.value.nbytes());
      if (parameter.whole.defined()) whole += static_cast<int64_t>(parameter.whole.nbytes());
      const int64_t elements = c10::multiply_integers(parameter.full_shape), block = nn::block_of(parameter.name);
      const bool is_gathered = parameter.is_split() && !parameter.whole.defined() && !is_quantizer(parameter.role);
      if (!is_quantizer(parameter.role) && !(parameter.role == nn::Role::kWeight && block >= 0))
        rest += static_cast<int64_t>((parameter.whole.defined() ? parameter.whole : parameter.value).nbytes());
      if (is_gathered && block < 0) {
        outside += elements;
        outside_own += parameter.value.numel();
      } else if (parameter.role == nn::Role::kWeight) {
        linear_elements += elements;
        if (block >= 0) {
          in_blocks += elements;
          ++num_in_blocks;
        }
        if (!is_gathered) continue;
        gathered += elements;
        own += parameter.value.numel();
        widest_block = std::max(widest_block, blocks[block] += elements);
      }
    }
  }

  /// Weights in memory together, when those of two blocks are whole (the one in use and the next), or all.
  int64_t held_bytes(bool by_block, int64_t compute, int64_t wide) const {
    const int64_t away = by_block ? std::max<int64_t>(0, gathered - 2 * widest_block) : 0;
    return (linear_elements - away + own) * compute + (outside + outside_own) * wide;
  }
};

/// Whether a process adds up gradients of its own rows alone.
bool sums_rows(const Layout& layout) { return layout.num_shards() > 1 && layout.reduces_each_micro_batch(); }

/// Gradients grow while activations go: what of them lies beside all of the activations, or at the step's end exceeds
/// the memory that these (and the loss) have freed.
int64_t gradients_in(const Owned& owned, const Layout& layout, int64_t forwards, bool quantized, int64_t compute,
                     int64_t wide, int64_t freed) {
  const int64_t of_masters = owned.masters + owned.whole + owned.outside * wide;
  // Of weights that are held in the compute dtype: sums over micro-batches (from the third on in fp32) of the rows that
  // this process owns (ddp, zero1: of all), and what is under way between processes (a block and the one before).
  const int64_t summed = quantized ? owned.in_blocks - (sums_rows(layout) ? owned.gathered - owned.own : 0) : 0;
  const int64_t under_way = sums_rows(layout) ? std::min(owned.gathered, 2 * owned.widest_block) * compute : 0;
  int64_t beside = 0;  // of earlier micro-batches
  if (forwards > 1) beside = quantized ? summed * (forwards > 2 ? wide : compute) + owned.rest : of_masters;
  const int64_t sums = summed * (forwards > 1 ? wide : compute);
  const int64_t before_fold = owned.rest + sums + under_way;
  const int64_t folded = std::min(owned.num_in_blocks, quant::HeldWeights::kLayersAFold);  // whose sums are still there
  const int64_t after_fold = of_masters + (owned.num_in_blocks > 0 ? sums * folded / owned.num_in_blocks : 0);
  return std::max(beside, std::max(before_fold, after_fold) - freed);
}

}  // namespace

int64_t MemoryEstimate::total_bytes() const {
  int64_t total = 0;
  for (const auto& [name, bytes] : parts) total += bytes;
  return total;
}

MemoryEstimate estimate_memory(const config::Config& config, const models::Decoder& student,
                               const models::ModelConfig* teacher, at::ScalarType compute_dtype, at::Device device,
                               const Layout& layout) {
  SATIN_CHECK_EQ(student.parameters().options().shard.size, layout.num_shards());
  const models::ModelConfig& c = student.config();
  const auto compute = static_cast<int64_t>(c10::elementSize(compute_dtype));
  const int64_t wide = compute_dtype == at::kDouble ? 8 : 4;  // residual stream, norms, logits
  const bool branches =
      teacher && effective_neighbourhood(config.loss).rate > 0 && config.loss.neighbourhood.placement == "branch";
  const BatchShare share = share_of_step(config.train, layout.world_size);
  const int64_t context_length = config.train.sequence_length * (branches ? 2 : 1);
  const int64_t m = share.in_forward * context_length;
  const int64_t h = c.hidden_size, f = c.intermediate_size, v = c.vocab_size;

  const Owned owned(student.parameters());
  const auto activations_in = [&](int64_t element, int64_t sequences, int64_t length, bool masked, bool recompute) {
    const int64_t rows = sequences * length;
    const int64_t a_layer = activation_bytes_a_layer(config, c, element, wide);
    int64_t blocks = c.num_layers * a_layer;
    if (recompute) blocks = a_layer + c.num_layers * (wide * h + element * h);  // one, and the inputs of all
    int64_t bytes = rows * (blocks + wide * h + element * h);
    const bool by_length = !branches && element == compute && nn::takes_documents(device, compute_dtype, c.head_dim);
    if (!config.data.attention_across_documents)
      bytes += by_length ? 0 : element * rows * length;  // the mask, a number a pair
    else if (masked)
      bytes += element * length * length;
    return bytes;
  };
  // Every linear's weight in the compute dtype (dequantised, or cast), unless that is the master itself.
  const auto held_in = [&](int64_t element) {
    const bool casts = config.quantization || element != wide;
    return casts ? owned.held_bytes(layout.gathers_blocks(), element, wide) : 0;
  };
  const int64_t activations =
      activations_in(compute, share.in_forward, context_length, branches, config.train.activation_checkpointing);
  const int64_t held = held_in(compute);

  const losses::HeadChunks chunks(config.loss.chunk_tokens, m, v, compute_dtype, device);
  const int64_t head = v * h * (wide + compute) + m * h * compute * 3;  // its gradient and cast, and states beside it
  const int64_t loss = head + chunks.bytes(v, compute_dtype, teacher != nullptr);
  // While the backward enters the last layer: a second copy of the head's gradient, gradients of one MLP and of the
  // residual stream.
  const int64_t backward = head + v * h * wide + m * (3 * f * compute + 2 * h * wide) + 3 * h * f * wide;
  const int64_t workspace = std::max<int64_t>(0, backward - loss);

  const int64_t gradients = gradients_in(owned, layout, share.forwards, config.quantization.has_value(), compute, wide,
                                         activations + loss + workspace);
  MemoryEstimate estimate;
  estimate.parts = {{"weights", owned.masters + owned.whole}, {"optimizer", 2 * owned.masters}};
  estimate.parts.emplace_back("teacher",
                              teacher ? (teacher_elements(*teacher, layout) + m * teacher->hidden_size) * compute : 0);
  estimate.parts.emplace_back("activations", activations);
  estimate.parts.emplace_back("held weights", held);
  if (config.quantization && config.logging.quantizers_every_n_steps > 0)
    estimate.parts.emplace_back("codes", owned.linear_elements - owned.gathered + owned.own);  // of the last look
  estimate.parts.emplace_back("loss", loss);
  if (config.loss.hidden.weight > 0) {
    // A gradient of each compared layer until the backward; of the layer at hand the teacher's state, both directions
    // and a product. The student's states are among the activations.
    const int64_t layers = config.loss.hidden.layers == "last" ? 1 : c.num_layers;
    estimate.parts.emplace_back("hidden", (layers + 4) * m * h * wide);
  }
  if (const config::GradientPenalty& lgr = config.loss.lgr; penalises(lgr)) {
    // The losses' gradients lie aside, whole copies and quantized weights have fp32 gradients of their own (of a split
    // weight the rows that this process owns, and what is under way between processes), and what fp32 activations and
    // their offset take beyond those of the step.
    const int64_t all = share.in_forward, length = config.train.sequence_length;
    const int64_t sequences = lgr.sequences > 0 ? std::min(lgr.sequences, all) : all;
    int64_t passes =
        activations_in(wide, sequences, length, false, false) + held_in(wide) + sequences * length * h * 2 * wide;
    // The pass for g leaves its layer's block whole and the one below on its way; the first two are needed next anyway.
    if (layout.gathers_blocks() && lgr.layer > 1) passes += 2 * owned.widest_block * wide;
    const int64_t away = std::max<int64_t>(0, owned.gathered - owned.own - 2 * owned.widest_block);
    const int64_t held_gradients = owned.linear_elements - (sums_rows(layout) ? away : 0);
    estimate.parts.emplace_back("lgr", owned.masters + owned.whole + (config.quantization ? held_gradients * wide : 0) +
                                           std::max<int64_t>(0, passes - activations - held));
  }
  estimate.parts.emplace_back("workspace", workspace);
  estimate.parts.emplace_back("gradients", gradients);
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
