#include "train/training_data.h"

namespace satin::train {

data::Dataset open_training_data(const config::Config& config, const tokenizer::Tokenizer& tokenizer,
                                 const std::filesystem::path& tokens) {
  return data::open_dataset(
      config.data.train, tokenizer,
      config.data.cache_dir.empty() ? tokens : std::filesystem::path(config.data.cache_dir),
      {config.train.sequence_length, config.data.attention_across_documents, config.data.shuffle, config.train.seed});
}

}  // namespace satin::train
