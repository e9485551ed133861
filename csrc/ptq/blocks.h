// A decoder walked block by block over all calibration sequences: what lies between two blocks is in memory, no more.
//
// Shapes   S sequences, T tokens, H hidden, B sequences of a batch. A stream [S, T, H] is the residual stream before a
//          block, in the dtype of statistics.
#pragma once
#include <string>
#include <vector>

#include "models/decoder.h"

namespace satin::ptq {

struct Calibration {
  at::Tensor tokens;        ///< [S, T] int64, on the host
  at::Tensor loss_mask;     ///< [S, T] bool: position t's prediction of token t + 1 counts
  at::Tensor document_ids;  ///< [S, T] int64, or undefined: attention sees the whole sequence
};

class Blocks {
 public:
  /// `batch_size`: sequences in a pass. `keep_on_host`: where streams are; blocks compute on the decoder's device.
  /// The decoder outlives it.
  Blocks(models::Decoder& decoder, Calibration text, int64_t batch_size, bool keep_on_host);

  models::Decoder& decoder() const { return decoder_; }
  int64_t size() const { return decoder_.config().num_layers; }
  const Calibration& text() const { return text_; }
  /// Sequence numbers [B] of each batch, in order.
  const std::vector<at::Tensor>& batches() const { return batches_; }

  /// The stream before block 0.
  at::Tensor embed() const;
  /// Block `index` on the stream of the sequences `which`, [B, T, H] on the device. Differentiable.
  at::Tensor run(int64_t index, const at::Tensor& x, const at::Tensor& which) const;
  /// Block `index` on all sequences, without gradients. Polls for signals (InterruptedError).
  at::Tensor advance(int64_t index, const at::Tensor& stream) const;
  /// The sequences `which` of a stream, on the device.
  at::Tensor take(const at::Tensor& stream, const at::Tensor& which) const;
  /// An empty stream, where streams are kept.
  at::Tensor empty_stream() const;

 private:
  models::Decoder& decoder_;
  Calibration text_;
  std::vector<at::Tensor> batches_;
  bool keep_on_host_;
};

/// Throws InterruptedError when a signal asked to stop; finished blocks are on the disk by then.
void stop_if_asked();

}  // namespace satin::ptq
