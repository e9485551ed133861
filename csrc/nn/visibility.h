// Which keys a query may see: causally all, those of its document, or what a mask says.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace satin::nn {

/// Documents among the B T tokens of a batch, one after another.
struct Documents {
  at::Tensor starts;  ///< [D + 1] int32 on the device: document d is tokens starts[d] to starts[d + 1] - 1
  int64_t longest = 0, num_tokens = 0;  ///< of one document, of all
};

/// Of queries T and keys S.
struct Visibility {
  bool causal = true;        ///< query t sees keys 0 ... t; the only case that fused kernels take without a mask
  at::Tensor mask = {};      ///< [1 or B, 1, T, S] bool instead, or as additive() makes it; undefined: every key
  Documents documents = {};  ///< with `causal`, where defined: query t sees its document's alone
};

/// Whether attention takes documents by their lengths (flash attention: half precision), so that tokens that do not see
/// each other cost nothing; else by a mask.
bool takes_documents(at::Device device, at::ScalarType dtype, int64_t head_dim);

/// Of T new tokens after `past` cached ones; document_ids [B, T] int64 or undefined (not together with a cache): tokens
/// of equal id see each other. by_length: as documents, if ids are on the host and rise within a sequence.
Visibility visibility(int64_t num_tokens, int64_t past, const at::Tensor& document_ids, at::Device device,
                      bool by_length = false);

/// The mask as numbers added to attention's logits, 0 or -infinity, in the compute dtype: what every layer would make
/// of a bool one, and keep for its backward.
Visibility additive(const Visibility& visible, at::ScalarType dtype);

}  // namespace satin::nn
