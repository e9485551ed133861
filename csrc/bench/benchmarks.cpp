#include "bench/benchmarks.h"

#include "bench/timer.h"
#include "core/error.h"

namespace satin::bench {

const std::vector<Benchmark>& benchmarks() {
  static const std::vector<Benchmark> all = {
      {"act_quant", "activations and KV cache: time beside the floor of their bytes", bench_act_quant},
      {"decode", "text token by token: time beside the floor of the bytes read", bench_decode},
      {"fake_quant", "fake quantization: time beside the floor of its bytes", bench_fake_quant},
      {"head", "LM head and losses: time, and memory beyond the gradients", bench_head},
      {"loss_step", "training steps by loss: what distillation and smoothness add", bench_loss_step},
      {"optimizer", "gradient norms, clipping and AdamW: time beside the floor of their bytes", bench_optimizer},
      {"packed_linear", "low-bit weights as codes: a few rows times a matrix", bench_packed_linear},
      {"step", "training steps: what quantization adds to a dense one", bench_step}};
  return all;
}

double report_copy(const Options& options) {
  const double bandwidth = copy_bandwidth(options.device);
  Measurement copy;
  copy.name = cat("plain copy: ", fixed(bandwidth * 1e-12, 3), " TB/s");
  options.report(copy);
  return bandwidth;
}

const char* dtype_name(at::ScalarType master) { return master == at::kBFloat16 ? "bfloat16" : "float32"; }

models::ModelConfig named_shape(const std::string& name) {
  struct Shape {
    const char* name;
    int64_t hidden, layers, heads, kv_heads, ffn, vocabulary;
  };
  static const Shape shapes[] = {{"tiny", 128, 2, 4, 2, 384, 512},
                                 {"29m", 512, 8, 8, 4, 1536, 8192},
                                 {"135m", 576, 30, 9, 3, 1536, 49152},
                                 {"1.2b", 2048, 16, 32, 8, 8192, 128256}};
  for (const Shape& shape : shapes) {
    if (shape.name != name) continue;
    models::ModelConfig config{};
    config.model_type = "llama";
    config.vocab_size = shape.vocabulary;
    config.hidden_size = shape.hidden;
    config.intermediate_size = shape.ffn;
    config.num_layers = shape.layers;
    config.num_heads = shape.heads;
    config.num_kv_heads = shape.kv_heads;
    config.head_dim = shape.hidden / shape.heads;
    config.max_position_embeddings = 8192;
    config.rms_norm_eps = 1e-5;
    config.initializer_range = 0.02;
    config.tied_embeddings = true;
    return config;
  }
  throw InternalError(cat("unknown shape ", name));
}

}  // namespace satin::bench
