// The data.valid texts: tokenised once, scored during training and after it.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "config/schema.h"
#include "dist/communicator.h"
#include "models/decoder.h"
#include "tokenizer/tokenizer.h"

namespace satin::train {

class Validation {
 public:
  /// Reads every data.valid text (as much as eval.limit asks for). Errors: UserError naming the file.
  Validation(const config::Config& config, const tokenizer::Tokenizer& tokenizer);

  bool empty() const { return texts_.empty(); }
  /// Perplexity of every text: {"<name>": {"perplexity", "nll", "tokens", "protocol"}}; logs one line each. Called by
  /// every rank, each with the whole model: they share the windows and all get the results of one process.
  nlohmann::json evaluate(models::Decoder& decoder, const std::string& label, dist::Communicator& ranks) const;

 private:
  struct Text {
    std::string name, documents;
    std::vector<int32_t> tokens;
  };
  std::vector<Text> texts_;
  int64_t sequence_length_, limit_;
};

}  // namespace satin::train
