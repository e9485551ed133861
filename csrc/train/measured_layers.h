// A decoder of which some layers are rounded (to nearest, the configuration's scheme at other bits) and the rest is in
// full precision: what that does to its losses. A layer is a block of the decoder.
#pragma once
#include <map>
#include <string>

#include "train/allocation_data.h"
#include "train/models.h"

namespace satin::train {

struct LayerLosses {
  double perplexity;  ///< of general text
  double answers;     ///< mean -ln p of all answers' tokens; NaN without questions
};

/// By module: bits of each config::kBitColumns inputs, where these differ.
using ColumnBits = std::map<std::string, std::vector<int64_t>>;

class MeasuredLayers {
 public:
  /// `general`: sequences of train.sequence_length, one after the other.
  MeasuredLayers(const config::Config& config, Student student, std::vector<int32_t> general,
                 std::vector<Question> questions);

  size_t size() const { return layers_.size(); }
  bool has_questions() const { return !questions_.empty(); }
  int64_t num_parameters(size_t layer) const;
  /// Stored bits a weight, scales and zero points included, with these bits of each layer.
  double effective_bits(const std::vector<int>& bits, const ColumnBits& columns = {}) const;

  /// Rounds the layers with bits above 0, in full precision the others. `columns`: instead of their layer's bits.
  void round(const std::vector<int>& bits, const ColumnBits& columns = {}) const;
  /// Of the model with these bits. Throws InterruptedError.
  LayerLosses losses(const std::vector<int>& bits, const ColumnBits& columns = {}) const;

  /// Mean squares of each layer's input in full precision, summed over its features: of general text, of the questions
  /// with an even number, of the others.
  std::vector<double> general_energies() const;
  std::vector<double> question_energies(bool odd) const;

  const Student& student() const { return student_; }
  const std::vector<const quant::QuantizedModule*>& modules(size_t layer) const { return layers_[layer]; }
  /// General text [S, T] int64.
  at::Tensor general_tokens() const;

 private:
  double answer_loss() const;

  const config::Config& config_;
  Student student_;
  std::vector<int32_t> general_;
  std::vector<Question> questions_;
  std::vector<std::vector<const quant::QuantizedModule*>> layers_;
};

}  // namespace satin::train
