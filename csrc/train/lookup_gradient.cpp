#include "train/lookup_gradient.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "nn/gradient.h"
#include "ops/add_rows.h"

namespace satin::train {

LookupGradient::LookupGradient(models::Decoder& student, const quant::Registry& quantized, const dist::Sharing& sharing,
                               SharedParameters& shared)
    : student_(student), sharing_(sharing), shared_(shared) {
  const auto plain = [&](const std::string& module) -> const nn::Parameter* {
    const nn::Parameter* const found = student.parameters().find(module + ".weight");
    const bool is_plain = found && !quantized.find(module) && found->value.requires_grad();
    return is_plain && !found->is_split() && !found->whole.defined() ? found : nullptr;
  };
  embedding_ = plain("model.embed_tokens");
  head_ = student.config().tied_embeddings ? embedding_ : plain("lm_head");
}

void LookupGradient::begin_step(const std::vector<int64_t>& num_tokens) {
  most_ = *std::max_element(num_tokens.begin(), num_tokens.end());
  by_rows_ = embedding_ && most_ * static_cast<int64_t>(num_tokens.size()) <= student_.config().vocab_size;
}

at::Tensor LookupGradient::look_up(const at::Tensor& tokens) {
  if (!by_rows_) return {};
  const at::NoGradGuard no_grad;
  tokens_ = tokens.reshape({-1});
  leaf_ = student_.embed(tokens).detach().requires_grad_(true);
  return leaf_;
}

void LookupGradient::collect(bool last) {
  if (!leaf_.defined()) return;
  const at::NoGradGuard no_grad;
  const at::Tensor ids = std::exchange(tokens_, {}), leaf = std::exchange(leaf_, {});
  SATIN_CHECK(leaf.grad().defined(), "a backward that has not reached the embedding");
  const at::Tensor rows = leaf.grad().reshape({-1, leaf.size(-1)});
  const int64_t size = sharing_.world->size();
  if (!last || size == 1) return add(ids, rows);
  // Fewer are filled up with nothing, added to the first row.
  Exchange e;
  e.my_ids = at::zeros({most_}, ids.options());
  e.my_rows = at::zeros({most_, rows.size(1)}, rows.options().dtype(sharing_.dtype_for(rows)));
  e.my_ids.narrow(0, 0, ids.size(0)).copy_(ids);
  e.my_rows.narrow(0, 0, rows.size(0)).copy_(rows);
  e.ids = at::empty({size * most_}, ids.options());
  e.rows = at::empty({size * most_, rows.size(1)}, e.my_rows.options());
  e.of_ids = sharing_.world->all_gather(e.ids, e.my_ids);
  e.of_rows = sharing_.world->all_gather(e.rows, e.my_rows);
  exchange_ = std::move(e);
}

void LookupGradient::add_head(const at::Tensor& head, const at::Tensor& grad_head, bool last) {
  if (head_ && head.is_same(head_->value)) {  // as it is, where autograd would make a copy
    const at::NoGradGuard no_grad;
    nn::add_gradient(head_->value, grad_head);
  } else {
    torch::autograd::backward({head}, {grad_head});
  }
  if (!last) return;
  if (head_) shared_.start_reduce({head_});
  if (head_ != embedding_) shared_.start_reduce({embedding_});
}

void LookupGradient::finish() {
  if (!exchange_) return;
  exchange_->of_ids.wait();
  exchange_->of_rows.wait();
  add(exchange_->ids, exchange_->rows);
  exchange_.reset();
}

void LookupGradient::add(const at::Tensor& ids, const at::Tensor& rows) {
  const at::NoGradGuard no_grad;
  at::Tensor& gradient = at::Tensor(embedding_->value).mutable_grad();
  if (!gradient.defined()) gradient = at::zeros_like(embedding_->value);
  ops::add_rows(gradient, ids, rows);
}

}  // namespace satin::train
