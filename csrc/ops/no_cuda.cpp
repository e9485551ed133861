// A build without CUDA registers no CUDA kernels: the dispatcher then names the operator and the missing backend.
#include "ops/anchors.h"

namespace satin::ops {

void anchor_cuda() {}
void anchor_act_quant_cuda() {}
void anchor_layers_cuda() {}
void anchor_logit_losses_cuda() {}

}  // namespace satin::ops
