// One function in each file of registrations. What finds an operator (find_operator.h) calls them all, so that
// whoever uses a wrapper links the registrations.
#pragma once

namespace satin::ops {

void anchor_schema();
void anchor_cpu();
void anchor_autograd();
void anchor_cuda();

void anchor_act_quant_cpu();
void anchor_act_quant_autograd();
void anchor_act_quant_cuda();

void anchor_layers_cpu();
void anchor_layers_autograd();
void anchor_layers_cuda();

void anchor_logit_losses_cpu();
void anchor_logit_losses_cuda();

}  // namespace satin::ops
