// The texts of data.train as the run reads them.
#pragma once
#include "config/schema.h"
#include "data/dataset.h"
#include "train/run_directory.h"

namespace satin::train {

/// Tokenises what is not yet, into data.cache_dir or the run's own folder. Throws UserError.
data::Dataset open_training_data(const config::Config& config, const tokenizer::Tokenizer& tokenizer,
                                 const RunDirectory& directory);

}  // namespace satin::train
