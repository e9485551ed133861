// The arithmetic of adamw.h on one number, compiled for both devices.
#pragma once
#include "kernels/adamw.h"
#include "kernels/fake_quant_math.h"

namespace satin::kernels {

template <class T>
struct AdamWStep {
  T clip, blend1, blend2, epsilon, shrink, size, root;

  SATIN_INLINE AdamWStep(const AdamWBetas& betas, const AdamWTask<T>& task)
      : clip(task.clip ? *task.clip : T(1)),
        blend1(static_cast<T>(1 - betas.beta1)),
        blend2(static_cast<T>(1 - betas.beta2)),
        epsilon(static_cast<T>(betas.epsilon)),
        shrink(static_cast<T>(task.rate * task.decay)),
        size(static_cast<T>(task.rate) * task.corrections[0]),
        root(task.corrections[1]) {}

  SATIN_INLINE void update(T& w, T gradient, T& mean, T& square) const {
    const T g = clip * gradient;
    mean += blend1 * (g - mean);
    square += blend2 * (g * g - square);
    w -= shrink * w;
    w -= size * mean / (root * std::sqrt(square) + epsilon);
  }
};

}  // namespace satin::kernels
