// What config.json can ask for that this decoder does not do.
#pragma once
#include "models/config_reader.h"

namespace satin::models {

/// Refuses, by key and value, every known key that would change the model's function in a way that is not implemented;
/// values that switch such a feature off pass. Sliding windows are checked by check_sliding_window.
void check_unsupported(const ConfigReader& config);

/// A sliding window is inactive when sliding_window is null, use_sliding_window is false, it is at least
/// max_position_embeddings, or no layer uses it (layer_types all full_attention; max_window_layers >= num_layers).
/// `default_window` is what transformers assumes when the key is absent (0: none).
void check_sliding_window(const ConfigReader& config, int64_t default_window, bool off_by_default,
                          int64_t max_position_embeddings, int64_t num_layers);

}  // namespace satin::models
