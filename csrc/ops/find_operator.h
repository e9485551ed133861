// An operator by its name, through the dispatcher.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

#include "ops/anchors.h"

namespace satin::ops {

template <class Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
  anchor_schema(), anchor_cpu(), anchor_autograd(), anchor_cuda();
  anchor_act_quant_cpu(), anchor_act_quant_autograd(), anchor_act_quant_cuda();
  anchor_layers_cpu(), anchor_layers_autograd(), anchor_layers_cuda();
  anchor_logit_losses_cpu(), anchor_logit_losses_cuda();
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace satin::ops
