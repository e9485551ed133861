// The texts of data.train as the run reads them.
#pragma once
#include "config/schema.h"
#include "data/dataset.h"

namespace satin::train {

/// Tokenises what is not yet, into data.cache_dir or else into `tokens`. Throws UserError.
data::Dataset open_training_data(const config::Config& config, const tokenizer::Tokenizer& tokenizer,
                                 const std::filesystem::path& tokens);

}  // namespace satin::train
