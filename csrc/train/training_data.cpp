#include "train/training_data.h"

#include <ATen/ATen.h>

#include "data/loader.h"

namespace satin::train {

data::Dataset open_training_data(const config::Config& config, const tokenizer::Tokenizer& tokenizer,
                                 const std::filesystem::path& tokens) {
  return data::open_dataset(
      config.data.train, tokenizer,
      config.data.cache_dir.empty() ? tokens : std::filesystem::path(config.data.cache_dir),
      {config.train.sequence_length, config.data.attention_across_documents, config.data.shuffle, config.train.seed});
}

ptq::Calibration read_sequences(const data::Dataset& dataset, int64_t count) {
  data::Loader loader(dataset, {.share = {1, 1}});
  std::vector<at::Tensor> tokens, scored, ids;
  for (int64_t i = 0; i < count; ++i) {
    const data::Batch batch = loader.next().batch;
    tokens.push_back(batch.tokens);
    scored.push_back(batch.loss_mask);
    if (batch.document_ids.defined()) ids.push_back(batch.document_ids);
  }
  return {at::cat(tokens), at::cat(scored), ids.empty() ? at::Tensor() : at::cat(ids)};
}

}  // namespace satin::train
