#include "ptq/blocks.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/interrupt.h"

namespace satin::ptq {

void stop_if_asked() {
  if (const int signal = interrupt_signal())
    throw InterruptedError(cat("stopped by signal ", signal, "; --resume auto goes on after the last finished block"));
}

Blocks::Blocks(models::Decoder& decoder, Calibration text, int64_t batch_size, bool keep_on_host)
    : decoder_(decoder), text_(std::move(text)), keep_on_host_(keep_on_host) {
  SATIN_CHECK(batch_size > 0 && text_.tokens.dim() == 2, "batches of ", batch_size, ", tokens ", text_.tokens.sizes());
  for (int64_t first = 0; first < text_.tokens.size(0); first += batch_size)
    batches_.push_back(at::arange(first, std::min(first + batch_size, text_.tokens.size(0)), at::kLong));
}

at::Tensor Blocks::empty_stream() const {
  const nn::BuildOptions& build = decoder_.parameters().options();
  return at::empty({text_.tokens.size(0), text_.tokens.size(1), decoder_.config().hidden_size},
                   at::TensorOptions()
                       .dtype(nn::statistics_dtype(build.compute_dtype))
                       .device(keep_on_host_ ? at::Device(at::kCPU) : build.device));
}

at::Tensor Blocks::embed() const {
  const at::NoGradGuard no_grad;
  at::Tensor stream = empty_stream();
  for (const at::Tensor& which : batches_)
    stream.index_copy_(0, which.to(stream.device()),
                       decoder_.embed(text_.tokens.index_select(0, which)).to(stream.device()));
  return stream;
}

at::Tensor Blocks::take(const at::Tensor& stream, const at::Tensor& which) const {
  return stream.index_select(0, which.to(stream.device())).to(decoder_.parameters().options().device);
}

at::Tensor Blocks::run(int64_t index, const at::Tensor& x, const at::Tensor& which) const {
  models::ForwardOptions options;
  if (text_.document_ids.defined()) options.document_ids = text_.document_ids.index_select(0, which);
  return decoder_.layer(index, x, options);
}

at::Tensor Blocks::advance(int64_t index, const at::Tensor& stream) const {
  const at::NoGradGuard no_grad;
  at::Tensor next = empty_stream();
  for (const at::Tensor& which : batches_) {
    stop_if_asked();
    next.index_copy_(0, which.to(next.device()), run(index, take(stream, which), which).to(next.device()));
  }
  return next;
}

}  // namespace satin::ptq
