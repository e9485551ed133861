#include "train/training_data.h"

namespace satin::train {

data::Dataset open_training_data(const config::Config& config, const tokenizer::Tokenizer& tokenizer,
                                 const RunDirectory& directory) {
  const fs::path cache = config.data.cache_dir.empty() ? directory.path() / "cache" : fs::path(config.data.cache_dir);
  return data::open_dataset(
      config.data.train, tokenizer, cache,
      {config.train.sequence_length, config.data.attention_across_documents, config.data.shuffle, config.train.seed});
}

}  // namespace satin::train
