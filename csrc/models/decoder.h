// A pre-norm decoder (Llama and its relatives). Shapes: B sequences, T tokens, H hidden, V vocabulary.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "models/block_boundary.h"
#include "models/model_config.h"
#include "nn/linear_factory.h"
#include "ops/cache_rows.h"

namespace satin::models {

/// Keys and values of the tokens already seen, for generation: one pair of [B, kv_heads, T, head_dim] a layer, in the
/// compute dtype or as integers (store_keys_and_values_as).
struct KvCache {
  std::vector<ops::CacheRows> keys, values;
  int64_t length = 0;
};

/// Where a number of sequences stand that go on token by token in memory of fixed size.
struct StepState {
  std::vector<ops::CacheRows> keys, values;  ///< of each layer, of [B, kv_heads, places, head_dim], as KvCache's
  at::Tensor positions;                      ///< [B] int64 on the device: of the last tokens, below `places`
  at::Tensor cos, sin;                       ///< [places, head_dim / 2]

  int64_t cache_bytes() const;
};

struct ForwardOptions {
  at::Tensor document_ids = {};       ///< [B, T] int64 or undefined: tokens attend within their document only
  KvCache* cache = nullptr;           ///< appended to; positions continue from its length
  std::vector<KvCache*> caches = {};  ///< instead, one of each sequence, which has a length of its own
  at::Tensor positions = {};          ///< [T] int64 on the CPU or undefined (0, 1, ...): of every sequence's tokens
  at::Tensor mask = {};               ///< [1 or B, 1, T, T] bool or undefined (causal): which keys a query sees
  at::Tensor input_embeddings =
      {};  ///< [B, T, H] instead of the embedding of `tokens` (gradients with respect to inputs)
  std::vector<at::Tensor>* taps = nullptr;  ///< receives each layer's input (residual stream), layer 0 first
  /// Called with the residual stream [B, T, H] after each layer, layer 0 first; the last is the final norm's input.
  std::function<void(int64_t layer, const at::Tensor& stream)> after_layer = {};
  at::Tensor offset = {};  ///< [B, T, H] or undefined: added to the input of layer offset_layer (in its taps too)
  int64_t offset_layer = 0;
  bool recompute = false;  ///< keep each block's input alone for the backward (recompute.h)
};

/// none, int8, int4. Throws UserError, beginning with `where`.
std::optional<ops::ActivationFormat> kv_cache_format(const std::string& name, const std::string& where);

class Decoder {
 public:
  Decoder(const ModelConfig& config, const nn::LinearFactory& factory, const nn::BuildOptions& options);
  ~Decoder();
  Decoder(Decoder&&) noexcept;
  Decoder& operator=(Decoder&&) noexcept;

  /// tokens [B, T] int64 -> output of the final norm [B, T, H] in the compute dtype.
  at::Tensor hidden(const at::Tensor& tokens, const ForwardOptions& options = {});
  /// tokens [B, T] int64 -> layer 0's input [B, T, H], in the residual stream's dtype: fp32 (fp64 when compute is
  /// fp64).
  at::Tensor embed(const at::Tensor& tokens);
  /// Layer `index` alone: the residual stream before it [B, T, H] (as in taps) -> the stream after it. Of the options
  /// document_ids, positions and mask count. Differentiable.
  at::Tensor layer(int64_t index, const at::Tensor& stream, const ForwardOptions& options = {});
  /// The final norm: the last layer's stream [B, T, H] -> what hidden() gives.
  at::Tensor final_norm(const at::Tensor& stream);
  /// [..., H] -> logits [..., V] in fp32 (fp64 when compute is fp64). For losses use losses/head.h, which chunks.
  at::Tensor logits(const at::Tensor& hidden);

  /// Whether step() serves this model where it is: a device and dtype of ops/cached_attention.h.
  bool can_step() const;
  /// Of sequences already read, each into a cache of its own; at most `places` tokens each, these included. Packed
  /// weights are laid out for step() on the first call.
  StepState start_steps(const std::vector<KvCache*>& caches, int64_t places);
  /// tokens [B] int64 on the device, the next of each sequence -> logits [B, V] as logits() gives them, of those that
  /// follow. Advances the state. On CUDA nothing waits for the host, so that a graph can record it (ops/replay.h), and
  /// where weights are packed a layer is five launches, of more than four sequences seven.
  at::Tensor step(const at::Tensor& tokens, StepState& state);

  /// Keys and values from here on: rounded to 8 or 4 bits, one scale a token and head (straight through), and so held
  /// in caches that begin; or as they are.
  void store_keys_and_values_as(std::optional<ops::ActivationFormat> format);
  std::optional<ops::ActivationFormat> keys_and_values_stored_as() const;

  /// From here on every pass tells where it stands; an empty function: none does. Values and gradients stay the same.
  void observe_blocks(BlockObserver observer);

  nn::Linear& head();
  nn::ParameterStore& parameters();
  const nn::ParameterStore& parameters() const;
  const ModelConfig& config() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// Fills weights with N(0, initializer_range), norms with 1, biases with 0: a pure function of (seed, parameter name).
void initialise_randomly(Decoder& decoder, uint64_t seed);

}  // namespace satin::models
