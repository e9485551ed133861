#include "models/decoder.h"

#include "core/error.h"
#include "models/recompute.h"
#include "nn/attention.h"
#include "nn/mlp.h"
#include "nn/norm.h"
#include "nn/rope.h"
#include "ops/step_ends.h"
#include "ops/to_device.h"

namespace satin::models {
namespace {

/// What all layers of a pass see.
struct Context {
  std::vector<nn::Reading> readings;  ///< without a layer's caches
  std::optional<ops::ActivationFormat> stored_as;
};

/// x + attention(norm(x)), then + mlp(norm(x)).
struct Layer {
  nn::RmsNorm input_norm;
  nn::Attention attention;
  nn::RmsNorm post_norm;
  nn::GatedMlp mlp;

  Layer(const std::string& name, const ModelConfig& c, const nn::LinearFactory& factory, nn::ParameterStore& store)
      : input_norm(name + ".input_layernorm", c.hidden_size, c.rms_norm_eps, store),
        attention({.name = name + ".self_attn",
                   .hidden_size = c.hidden_size,
                   .num_heads = c.num_heads,
                   .num_kv_heads = c.num_kv_heads,
                   .head_dim = c.head_dim,
                   .qkv_bias = c.qkv_bias,
                   .output_bias = c.output_bias,
                   .qk_norm = c.qk_norm,
                   .rms_norm_eps = c.rms_norm_eps},
                  factory, store),
        post_norm(name + ".post_attention_layernorm", c.hidden_size, c.rms_norm_eps, store),
        mlp(name + ".mlp", c.hidden_size, c.intermediate_size, c.mlp_bias, factory, store) {}

  /// What the layer before adds to the stream waits for this one's norm, which adds and normalises in one pass. Caches:
  /// none, or one a reading.
  Stream forward(const Stream& stream, const Context& context, const std::vector<nn::LayerCache>& caches) const {
    const ops::RmsNormResult input = input_norm.forward(stream.first, stream.second);
    std::vector<nn::Reading> readings = context.readings;
    for (size_t i = 0; i < caches.size(); ++i) readings[i].cache = &caches[i];
    const ops::RmsNormResult post =
        post_norm.forward(input.sum, attention.forward(input.y, readings, context.stored_as));
    return {post.sum, mlp.forward(post.y)};
  }

  void prepare_to_step() {
    attention.prepare_to_step(input_norm);
    mlp.prepare_to_step(post_norm);
  }
  Stream step(const Stream& stream, const ops::AttentionCache& cache, std::optional<ops::ActivationFormat> stored_as,
              at::ScalarType dtype) const {
    return mlp.step(attention.step(stream, cache, stored_as, dtype), dtype);
  }
};

/// A wrong id on a device would end the process inside a kernel; on the host it costs one pass over the ids.
void check_tokens(const at::Tensor& tokens, int64_t vocab_size) {
  SATIN_CHECK(tokens.dim() == 2 && tokens.scalar_type() == at::kLong, "tokens must be [B, T] int64, found ",
              tokens.sizes(), " ", tokens.scalar_type());
  SATIN_CHECK(tokens.numel() > 0, "no tokens: ", tokens.sizes());
  if (!tokens.is_cpu()) return;
  const auto [least, most] = at::aminmax(tokens);
  const int64_t low = least.item<int64_t>(), high = most.item<int64_t>();
  if (low < 0 || high >= vocab_size)
    throw UserError(cat("token id ", low < 0 ? low : high, " is outside the model's vocabulary of ", vocab_size,
                        " (ids 0 to ", vocab_size - 1, "): was the text made with another tokenizer?"));
}

/// cos and sin [T, head_dim / 2] of the new tokens.
std::pair<at::Tensor, at::Tensor> rotations(nn::RopeTables& rope, const ForwardOptions& options, int64_t past,
                                            int64_t num_tokens, at::Device device) {
  if (!options.positions.defined()) return rope.slice(past, num_tokens);
  SATIN_CHECK(options.positions.is_cpu() && options.positions.scalar_type() == at::kLong,
              "positions: int64 on the CPU");
  SATIN_CHECK_EQ(options.positions.numel(), num_tokens);
  const auto [cos, sin] = rope.slice(0, options.positions.max().item<int64_t>() + 1);
  const at::Tensor rows = ops::to_device(options.positions, device);
  return {cos.index_select(0, rows), sin.index_select(0, rows)};
}

nn::Visibility visible_keys(const ForwardOptions& options, int64_t past, int64_t num_tokens, at::Device device,
                            bool by_length) {
  if (!options.mask.defined()) return nn::visibility(num_tokens, past, options.document_ids, device, by_length);
  SATIN_CHECK(options.mask.dim() == 4 && options.mask.size(-2) == num_tokens && options.mask.size(-1) == num_tokens,
              "mask ", options.mask.sizes(), " of ", num_tokens, " tokens");
  const at::Tensor mask = options.mask.to(device);
  if (!options.document_ids.defined()) return {false, mask};
  const at::Tensor ids = options.document_ids.to(device, /*non_blocking=*/true);
  return {false, (ids.unsqueeze(2) == ids.unsqueeze(1)).unsqueeze(1).logical_and_(mask)};
}

/// What `num_tokens` tokens read after `past` ones.
nn::Reading reading(nn::RopeTables& rope, int64_t head_dim, const ForwardOptions& options, int64_t past,
                    int64_t num_tokens, const nn::BuildOptions& build) {
  const auto [cos, sin] = rotations(rope, options, past, num_tokens, build.device);
  const bool by_length = nn::takes_documents(build.device, build.compute_dtype, head_dim);
  const nn::Visibility visible = visible_keys(options, past, num_tokens, build.device, by_length);
  return {cos, sin, nn::additive(visible, build.compute_dtype)};
}

}  // namespace

struct Decoder::Parts {
  ModelConfig config;
  nn::ParameterStore store;
  std::unique_ptr<nn::Linear> embedding;
  std::vector<Layer> layers;
  std::unique_ptr<nn::RmsNorm> norm;
  std::unique_ptr<nn::Linear> head;
  nn::RopeTables rope;
  std::optional<ops::ActivationFormat> stored_as;
  BlockObserver observer;
  at::Tensor step_norm_weight;  ///< of the last norm, once steps are prepared

  Parts(const ModelConfig& c, const nn::LinearFactory& factory, const nn::BuildOptions& options)
      : config(c),
        store(options),
        rope(c.rope, c.head_dim, options.device, nn::statistics_dtype(options.compute_dtype)) {
    embedding = factory({"model.embed_tokens", c.hidden_size, c.vocab_size, false, nn::Role::kEmbedding}, store);
    layers.reserve(c.num_layers);
    for (int64_t i = 0; i < c.num_layers; ++i) layers.emplace_back(cat("model.layers.", i), c, factory, store);
    norm = std::make_unique<nn::RmsNorm>("model.norm", c.hidden_size, c.rms_norm_eps, store);
    head = c.tied_embeddings ? nn::tied_linear(*embedding)
                             : factory({"lm_head", c.hidden_size, c.vocab_size, false}, store);
  }
};

int64_t StepState::cache_bytes() const {
  int64_t bytes = 0;
  for (const auto* field : {&keys, &values})
    for (const ops::CacheRows& held : *field) bytes += held.bytes();
  return bytes;
}

std::optional<ops::ActivationFormat> kv_cache_format(const std::string& name, const std::string& where) {
  if (name == "none") return std::nullopt;
  if (name == "int8") return ops::ActivationFormat::kInt8;
  if (name == "int4") return ops::ActivationFormat::kInt4;
  throw UserError(cat(where, ": expected none, int8 or int4, found \"", name, "\""));
}

Decoder::Decoder(const ModelConfig& config, const nn::LinearFactory& factory, const nn::BuildOptions& options)
    : parts_(std::make_unique<Parts>(config, factory, options)) {}
Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;
Decoder& Decoder::operator=(Decoder&&) noexcept = default;

at::Tensor Decoder::embed(const at::Tensor& tokens) {
  const nn::BuildOptions& build = parts_->store.options();
  check_tokens(tokens, parts_->config.vocab_size);
  return parts_->embedding->lookup(tokens.to(build.device, /*non_blocking=*/true))
      .to(nn::statistics_dtype(build.compute_dtype));
}

at::Tensor Decoder::hidden(const at::Tensor& tokens, const ForwardOptions& options) {
  Parts& p = *parts_;
  const nn::BuildOptions& build = p.store.options();
  at::Tensor x = options.input_embeddings.defined()
                     ? options.input_embeddings.to(nn::statistics_dtype(build.compute_dtype))
                     : embed(tokens);
  SATIN_CHECK(x.dim() == 3 && x.size(2) == p.config.hidden_size, "embeddings ", x.sizes());
  SATIN_CHECK(!options.offset.defined() || (options.offset_layer >= 0 && options.offset_layer < p.config.num_layers),
              "an offset at layer ", options.offset_layer, " of ", p.config.num_layers);

  std::vector<KvCache*> caches = options.caches;
  SATIN_CHECK(caches.empty() || (!options.cache && static_cast<int64_t>(caches.size()) == x.size(0)), caches.size(),
              " caches of ", x.size(0), " sequences");
  if (options.cache) caches = {options.cache};
  SATIN_CHECK(caches.empty() || !(options.positions.defined() || options.mask.defined()),
              "positions or a mask with a cache");
  SATIN_CHECK(caches.empty() || !options.recompute, "a cache and a backward");
  const int64_t num_tokens = x.size(1);
  Context context{{}, p.stored_as};
  const auto read_on = [&](int64_t past) {
    context.readings.push_back(reading(p.rope, p.config.head_dim, options, past, num_tokens, build));
  };
  if (caches.empty()) read_on(0);
  for (KvCache* cache : caches) {
    cache->keys.resize(p.layers.size());
    cache->values.resize(p.layers.size());
    read_on(cache->length);
  }
  at::Tensor delta;
  const auto num_blocks = static_cast<int64_t>(p.layers.size());
  const auto tell = [&](BlockEvent event, int64_t block) {
    if (p.observer) p.observer(event, block);
  };
  for (size_t i = 0; i < p.layers.size(); ++i) {
    const Layer& layer = p.layers[i];
    if (p.observer) std::tie(x, delta) = block_boundary(x, delta, static_cast<int64_t>(i), num_blocks, p.observer);
    tell(BlockEvent::kBeforeForward, static_cast<int64_t>(i));
    const bool offset_here = options.offset.defined() && static_cast<int64_t>(i) == options.offset_layer;
    if ((offset_here || options.taps) && delta.defined()) {  // ... unless the stream itself is wanted here
      x = x + delta;
      delta = at::Tensor();
    }
    if (offset_here) x = x + options.offset;
    if (options.taps) options.taps->push_back(x);
    std::vector<nn::LayerCache> layer_caches;
    for (KvCache* cache : caches) layer_caches.push_back({&cache->keys[i], &cache->values[i], cache->length});
    if (options.recompute)
      std::tie(x, delta) = recomputed(
          {x, delta}, [&layer, context](const Stream& stream) { return layer.forward(stream, context, {}); });
    else
      std::tie(x, delta) = layer.forward({x, delta}, context, layer_caches);
    if (options.after_layer) {
      x = x + delta;
      delta = at::Tensor();
      options.after_layer(static_cast<int64_t>(i), x);
    }
    tell(BlockEvent::kAfterForward, static_cast<int64_t>(i));
  }
  if (p.observer) std::tie(x, delta) = block_boundary(x, delta, num_blocks, num_blocks, p.observer);
  for (KvCache* cache : caches) cache->length += num_tokens;
  return p.norm->forward(x, delta).y;
}

at::Tensor Decoder::layer(int64_t index, const at::Tensor& stream, const ForwardOptions& options) {
  Parts& p = *parts_;
  SATIN_CHECK(index >= 0 && index < static_cast<int64_t>(p.layers.size()), "layer ", index, " of ", p.layers.size());
  SATIN_CHECK(stream.dim() == 3 && stream.size(2) == p.config.hidden_size, "a stream of ", stream.sizes());
  const Context context{{reading(p.rope, p.config.head_dim, options, 0, stream.size(1), p.store.options())},
                        p.stored_as};
  const auto [x, delta] = p.layers[static_cast<size_t>(index)].forward({stream, {}}, context, {});
  return x + delta;
}

at::Tensor Decoder::final_norm(const at::Tensor& stream) { return parts_->norm->forward(stream); }

at::Tensor Decoder::logits(const at::Tensor& hidden) {
  return parts_->head->logits(hidden, nn::statistics_dtype(parts_->store.options().compute_dtype));
}

bool Decoder::can_step() const {
  const nn::BuildOptions& build = parts_->store.options();
  return ops::serves_cached_attention(build.device, build.compute_dtype, parts_->config.head_dim);
}

StepState Decoder::start_steps(const std::vector<KvCache*>& caches, int64_t places) {
  Parts& p = *parts_;
  if (!p.step_norm_weight.defined()) {
    for (Layer& layer : p.layers) layer.prepare_to_step();
    p.step_norm_weight = p.norm->statistics_weight();
  }
  StepState state;
  const auto spread = [&](std::vector<ops::CacheRows> KvCache::*const field, size_t layer) {
    const auto of_all = [&](at::Tensor ops::CacheRows::*const part) {
      const at::Tensor& first = (caches[0]->*field)[layer].*part;
      if (!first.defined()) return first;
      auto shape = first.sizes().vec();
      shape[0] = static_cast<int64_t>(caches.size());
      shape[2] = places;
      at::Tensor all = at::zeros(shape, first.options());
      for (size_t i = 0; i < caches.size(); ++i)
        all[static_cast<int64_t>(i)]
            .narrow(1, 0, caches[i]->length)
            .copy_(((caches[i]->*field)[layer].*part)[0].narrow(1, 0, caches[i]->length));
      return all;
    };
    return ops::CacheRows{of_all(&ops::CacheRows::rows), of_all(&ops::CacheRows::scales)};
  };
  for (size_t layer = 0; layer < p.layers.size(); ++layer) {
    state.keys.push_back(spread(&KvCache::keys, layer));
    state.values.push_back(spread(&KvCache::values, layer));
  }
  std::vector<int64_t> positions;
  for (const KvCache* cache : caches) positions.push_back(cache->length - 1);
  std::tie(state.cos, state.sin) = p.rope.slice(0, places);
  state.positions = at::tensor(positions, at::kLong).to(p.store.options().device);
  return state;
}

at::Tensor Decoder::step(const at::Tensor& tokens, StepState& state) {
  Parts& p = *parts_;
  const at::ScalarType dtype = p.store.options().compute_dtype;
  SATIN_CHECK(p.step_norm_weight.defined() && tokens.dim() == 1 && tokens.sizes() == state.positions.sizes(),
              "step of ", tokens.sizes(), " tokens");
  Stream stream;
  if (const nn::PackedParts embedding = p.embedding->packed(); embedding.weight) {
    stream.first = ops::begin_step(*embedding.weight, tokens, state.positions, dtype);
  } else {
    state.positions.add_(1);
    stream.first = p.embedding->lookup(tokens).to(nn::statistics_dtype(dtype));
  }
  for (size_t i = 0; i < p.layers.size(); ++i)
    stream = p.layers[i].step(stream, {state.keys[i], state.values[i], state.positions, state.cos, state.sin},
                              p.stored_as, dtype);
  const nn::PackedParts head = p.head->packed();
  if (!head.weight || stream.second.defined())
    return logits(ops::rms_norm(stream.first, stream.second, p.step_norm_weight, p.norm->eps(), dtype).y);
  return ops::decode_rows({.weight = *head.weight,
                           .dtype = dtype,
                           .x = stream.first,
                           .norm_weight = p.step_norm_weight,
                           .norm_eps = p.norm->eps(),
                           .wide = true});
}

void Decoder::store_keys_and_values_as(std::optional<ops::ActivationFormat> format) { parts_->stored_as = format; }
std::optional<ops::ActivationFormat> Decoder::keys_and_values_stored_as() const { return parts_->stored_as; }

void Decoder::observe_blocks(BlockObserver observer) { parts_->observer = std::move(observer); }
nn::Linear& Decoder::head() { return *parts_->head; }
nn::ParameterStore& Decoder::parameters() { return parts_->store; }
const nn::ParameterStore& Decoder::parameters() const { return parts_->store; }
const ModelConfig& Decoder::config() const { return parts_->config; }

}  // namespace satin::models
