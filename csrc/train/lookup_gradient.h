// The gradient of an embedding's lookups, by rows: of the whole matrix a step looks up few. Sums of the rest, which is
// a tied head's, are then under way during the backward, and what is left to exchange when it ends is rows.
#pragma once
#include <optional>
#include <vector>

#include "dist/sharing.h"
#include "models/decoder.h"
#include "quant/registry.h"
#include "train/shared_parameters.h"

namespace satin::train {

class LookupGradient {
 public:
  /// All outlive it.
  LookupGradient(models::Decoder& student, const quant::Registry& quantized, const dist::Sharing& sharing,
                 SharedParameters& shared);

  /// Of this step; num_tokens: that the last micro-batch of each process looks up. Where the embedding is quantized,
  /// split or not trained, or their rows are more than the matrix has, autograd does it all.
  void begin_step(const std::vector<int64_t>& num_tokens);
  /// Whether the step's lookups are taken out of the graph.
  bool by_rows() const { return by_rows_; }
  /// tokens [B, T] int64 on the device -> their rows [B, T, H], a leaf to compute with; undefined: autograd's.
  at::Tensor look_up(const at::Tensor& tokens);
  /// After the backward to the leaf, if there is one. Of the last micro-batch the rows are exchanged, else added at
  /// once.
  void collect(bool last);
  /// By rows: adds grad_head [V, H], which is this object's from now on, to the gradient of what `head` was made of. Of
  /// the last micro-batch the sums over the processes start: nothing more comes but the last lookups.
  void add_head(const at::Tensor& head, const at::Tensor& grad_head, bool last);
  /// After SharedParameters::finish_reduces: adds what was exchanged.
  void finish();

 private:
  /// ids [n], rows [n, H]
  void add(const at::Tensor& ids, const at::Tensor& rows);

  models::Decoder& student_;
  const dist::Sharing& sharing_;
  SharedParameters& shared_;
  const nn::Parameter* embedding_ = nullptr;  ///< null: never by rows
  const nn::Parameter* head_ = nullptr;       ///< the same where tied; null: not a parameter
  bool by_rows_ = false;
  int64_t most_ = 0;  ///< tokens of a process
  at::Tensor tokens_, leaf_;
  struct Exchange {
    at::Tensor ids, rows, my_ids, my_rows;  ///< of all processes, and of this one
    dist::Pending of_ids, of_rows;
  };
  std::optional<Exchange> exchange_;  ///< under way
};

}  // namespace satin::train
