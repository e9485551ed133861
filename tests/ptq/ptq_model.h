// A tiny decoder in double with quantized layers, and text for it.
#pragma once
#include "models/tiny_model.h"
#include "ptq/blocks.h"
#include "quant/registry.h"

namespace satin::ptq {

struct PtqModel {
  quant::Registry registry;
  std::unique_ptr<models::Decoder> decoder;
  Calibration text;

  explicit PtqModel(at::ScalarType dtype = at::kDouble, bool grouped = true) {
    config::Quantization quantization;
    quantization.default_rule.group_size = 8;
    models::ModelConfig config = models::tiny_config();
    if (!grouped) config.num_kv_heads = config.num_heads;
    decoder = std::make_unique<models::Decoder>(
        config, quant::quant_linear_factory(quant::Policy(quantization), registry),
        nn::BuildOptions{.master_dtype = dtype, .compute_dtype = dtype, .trainable = true});
    models::randomise(*decoder);
    quant::initialise_from_weights(registry);
    at::manual_seed(7);
    text.tokens = models::random_tokens(4, 10);
    text.loss_mask = at::ones({4, 10}, at::kBool);
    text.loss_mask.select(1, 9).fill_(false);
    text.loss_mask[2].slice(0, 0, 4).fill_(false);
    text.document_ids = (at::arange(10) >= 6).to(at::kLong).repeat({4, 1});
  }
  std::vector<quant::QuantLinear*> linears(int64_t block) const {
    std::vector<quant::QuantLinear*> found;
    for (const auto& module : registry.modules())
      if (nn::block_of(module.name + ".") == block) found.push_back(module.linear);
    return found;
  }
};

}  // namespace satin::ptq
