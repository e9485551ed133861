#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "core/random.h"
#include "models/decoder.h"

namespace satin::models {

void initialise_randomly(Decoder& decoder, uint64_t seed) {
  const at::NoGradGuard no_grad;
  const double deviation = decoder.config().initializer_range;
  for (const nn::Parameter& parameter : decoder.parameters().all()) {
    at::Tensor value = parameter.value;
    switch (parameter.role) {
      case nn::Role::kWeight:
      case nn::Role::kEmbedding: {
        uint64_t stream = mix64(seed);
        for (const char c : parameter.name) stream = counter_hash({stream, static_cast<unsigned char>(c)});
        // Drawn on the CPU and whole, so that every device and every number of processes starts from the same numbers.
        const at::Tensor all = at::randn(parameter.full_shape, at::detail::createCPUGenerator(stream), at::kFloat);
        value.copy_(all.narrow(0, parameter.first_row, value.size(0)) * deviation);
        break;
      }
      case nn::Role::kNorm:
        value.fill_(1);
        break;
      case nn::Role::kBias:
        value.zero_();
        break;
      case nn::Role::kScale:
      case nn::Role::kZeroPoint:
      case nn::Role::kClip:
        break;  // quantizers start from the weights
    }
  }
}

}  // namespace satin::models
