// Model directories that hold a config.json and nothing else: enough for what is known before training.
#pragma once
#include <nlohmann/json.hpp>

#include "config/schema.h"
#include "support/test_support.h"

namespace satin::test {

struct Shape {
  int64_t hidden, layers, heads, kv_heads, intermediate, vocabulary;
  bool tied;
};
inline constexpr Shape kTiny{64, 3, 4, 2, 192, 1000, false};
inline constexpr Shape k1b{2048, 16, 32, 8, 8192, 128256, true};
inline constexpr Shape k8b{4096, 32, 32, 8, 14336, 128256, false};
inline constexpr Shape k70b{8192, 80, 64, 8, 28672, 128256, false};

inline void write_shape(const std::filesystem::path& directory, const Shape& s) {
  std::filesystem::create_directories(directory);
  write_file(directory / "config.json", nlohmann::json{{"model_type", "llama"},
                                                       {"vocab_size", s.vocabulary},
                                                       {"hidden_size", s.hidden},
                                                       {"intermediate_size", s.intermediate},
                                                       {"num_hidden_layers", s.layers},
                                                       {"num_attention_heads", s.heads},
                                                       {"num_key_value_heads", s.kv_heads},
                                                       {"max_position_embeddings", 8192},
                                                       {"rms_norm_eps", 1e-5},
                                                       {"tie_word_embeddings", s.tied}}
                                            .dump());
}

/// 2 bits in groups of 64 with zero points, distilled, at clean text.
inline config::Config qat_config(const std::filesystem::path& model, int64_t micro_batch, int64_t accumulation,
                                 int64_t length) {
  config::Config config;
  config.model.path = model.string();
  config.quantization = config::Quantization{};
  config.loss.neighbourhood.rate = 0;
  config.train.micro_batch_size = micro_batch;
  config.train.gradient_accumulation_steps = accumulation;
  config.train.sequence_length = length;
  return config;
}

}  // namespace satin::test
