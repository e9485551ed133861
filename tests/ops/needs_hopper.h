// Skips, loudly, a test of kernels that only Hopper runs.
#pragma once
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include "ops/device.h"

#define SATIN_NEEDS_HOPPER()                                                              \
  if (!at::hasCUDA() || ::satin::ops::compute_capability(at::Device(at::kCUDA, 0)) != 90) \
  GTEST_SKIP() << "needs an sm_90 device and a build with CUDA"
