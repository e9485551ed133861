#include "nn/tensor_memory.h"

namespace satin::nn {

void move_memory(const at::Tensor& to, const at::Tensor& from) {
  c10::StorageImpl* target = to.storage().unsafeGetStorageImpl();
  c10::StorageImpl* source = from.storage().unsafeGetStorageImpl();
  const size_t num_bytes = source->nbytes();
  target->set_data_ptr_noswap(source->set_data_ptr({nullptr, from.device()}));
  target->set_nbytes(num_bytes);
  source->set_nbytes(0);
}

void drop_memory(const at::Tensor& tensor) {
  c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap({nullptr, tensor.device()});
  storage->set_nbytes(0);
}

}  // namespace satin::nn
