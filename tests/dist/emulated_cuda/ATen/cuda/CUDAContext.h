#include "emulated_cuda.h"  // IWYU pragma: export
