#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "bench/benchmarks.h"
#include "bench/timer.h"
#include "core/error.h"
#include "models/decoder.h"
#include "ops/step_ends.h"
#include "quant/packed_linear.h"

namespace satin::bench {
namespace {

constexpr int64_t kContext = 512, kLongContext = 4096, kVeryLongContext = 16384, kDecodeGroupSize = 128;
constexpr int64_t kTokens = 20;  ///< after the context, then again

struct Bits {
  int blocks, head;  ///< 0: not quantized
};

/// Random codes, made where they are read: packing them would take longer than all else.
ops::PackedWeight random_weight(const nn::LinearSpec& spec, int bits, at::Device device) {
  ops::PackedWeight weight;
  weight.shape = {spec.out_features, spec.in_features, bits, kDecodeGroupSize};
  weight.zero = 1 << (bits - 1);
  const at::TensorOptions options = at::TensorOptions().device(device);
  weight.words =
      at::randint(-(int64_t{1} << 31), int64_t{1} << 31, {weight.shape.num_words()}, options.dtype(at::kInt));
  weight.scales = (at::rand({2 * weight.shape.num_pairs()}, options) * (.05 / (1 << bits))).to(at::kBFloat16);
  return weight;
}

nn::LinearFactory factory(const Bits& bits, at::Device device, double& bytes) {
  return [bits, device, &bytes, dense = nn::dense_linear_factory()](
             const nn::LinearSpec& spec, nn::ParameterStore& store) -> std::unique_ptr<nn::Linear> {
    const int of = spec.role == nn::Role::kEmbedding ? bits.head : bits.blocks;
    if (of == 0) {
      bytes += 2. * static_cast<double>(spec.out_features * spec.in_features);
      return dense(spec, store);
    }
    const ops::PackedWeight weight = random_weight(spec, of, device);
    bytes += static_cast<double>(weight.bytes());
    return std::make_unique<quant::PackedLinear>(spec, weight, store);
  };
}

struct Context {
  int64_t tokens;
  std::string cache = "none";  ///< as --kv-cache
};

/// A token of each of `sequences`, greedy: kTokens of them after the context, in one graph.
void measure(const Options& options, const std::string& shape, const Bits& bits, int64_t sequences,
             const Context& context, double bandwidth, double& dense_us) {
  std::string name = cat(shape, " ", bits.blocks ? cat("W", bits.blocks) : "bfloat16", ", sequences ", sequences);
  if (context.tokens != kContext) name += cat(", context ", context.tokens);
  if (context.cache != "none") name += cat(", ", context.cache, " cache");
  if (name.find(options.only) == std::string::npos) return;
  const at::NoGradGuard no_grad;
  nn::BuildOptions build;
  build.device = options.device;
  build.compute_dtype = build.master_dtype = options.device.is_cuda() ? at::kBFloat16 : at::kFloat;
  double bytes = 0;
  models::Decoder decoder(named_shape(shape), factory(bits, options.device, bytes), build);
  for (const nn::Parameter& parameter : decoder.parameters().all())
    parameter.role == nn::Role::kNorm ? at::Tensor(parameter.value).fill_(1)
                                      : at::Tensor(parameter.value).normal_(0, 0.02);
  const auto format = models::kv_cache_format(context.cache, "bench");
  decoder.store_keys_and_values_as(format);
  std::vector<std::unique_ptr<models::KvCache>> caches;
  std::vector<models::KvCache*> pointers;
  const models::ModelConfig& config = decoder.config();
  for (int64_t i = 0; i < sequences; ++i) {
    caches.push_back(std::make_unique<models::KvCache>());
    pointers.push_back(caches.back().get());
    pointers.back()->length = context.tokens;
    for (int64_t layer = 0; layer < config.num_layers; ++layer)
      for (auto* const field : {&pointers.back()->keys, &pointers.back()->values})
        field->push_back(
            ops::cache_rows(at::randn({1, config.num_kv_heads, context.tokens, config.head_dim},
                                      at::TensorOptions().device(options.device).dtype(build.compute_dtype)),
                            format));
  }
  models::StepState state = decoder.start_steps(pointers, context.tokens + kTokens);
  caches.clear();
  const double read = static_cast<double>(context.tokens) + .5 * static_cast<double>(kTokens + 1);  // places, mean
  const double cache_bytes =
      static_cast<double>(state.cache_bytes()) * read / static_cast<double>(context.tokens + kTokens);
  bytes += cache_bytes;
  const at::Tensor first = at::zeros({sequences}, state.positions.options());
  at::Tensor ids = first;
  Measurement m = time_calls(options.device, 1, [&](int i) {
    if (i % kTokens == 0) {
      state.positions.fill_(context.tokens - 1);
      ids = first;
    }
    const at::Tensor logits = decoder.step(ids, state);
    ids = ops::most_likely(logits);
    return std::vector<at::Tensor>{logits, ids};
  });
  m.name = name;
  m.floor_us = 1e6 * bytes / bandwidth;
  m.note = cat(fixed(1e6 * static_cast<double>(sequences) / m.us, 0), " tokens/s, ", fixed(bytes * 1e-6, 0), " MB");
  if (context.tokens != kContext) m.note += cat(" (cache ", fixed(cache_bytes * 1e-6, 1), ")");
  if (bits.blocks == 0)
    dense_us = m.us;
  else if (dense_us > 0)
    m.note += cat(", ", fixed(dense_us / m.us, 2), "x bfloat16");
  options.report(m);
}

}  // namespace

void bench_decode(const Options& options) {
  const bool cuda = options.device.is_cuda();
  const double bandwidth = report_copy(options);
  for (const int64_t sequences : {1, 4, 16}) {
    double dense_us = 0;
    for (const Bits& bits : {Bits{0, 0}, Bits{4, 8}, Bits{3, 8}, Bits{2, 8}, Bits{1, 8}})
      measure(options, cuda ? "1.2b" : "tiny", bits, sequences, {kContext}, bandwidth, dense_us);
    dense_us = 0;  // of a shorter context
    for (const int64_t context : {kLongContext, kVeryLongContext})
      for (const char* cache : {"none", "int8", "int4"})
        if (context == kLongContext || (cuda && sequences == 1))
          measure(options, cuda ? "1.2b" : "tiny", {4, 8}, sequences, {context, cache}, bandwidth, dense_us);
  }
}

}  // namespace satin::bench
