// The texts of data.train as the run reads them.
#pragma once
#include "config/schema.h"
#include "data/dataset.h"
#include "ptq/blocks.h"

namespace satin::train {

/// Tokenises what is not yet, into data.cache_dir or else into `tokens`. Throws UserError.
data::Dataset open_training_data(const config::Config& config, const tokenizer::Tokenizer& tokenizer,
                                 const std::filesystem::path& tokens);

/// The first `count` sequences that training would read, on the host: tokens [count, T] int64, the mask of what is
/// scored, document ids where attention keeps within documents.
ptq::Calibration read_sequences(const data::Dataset& dataset, int64_t count);

}  // namespace satin::train
