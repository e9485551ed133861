// Chooses the instantiation for a grid, for CPU and CUDA kernels.
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

/// body.template operator()<Grid>() for the grid's kind.
template <class Body>
void for_grid(Grid kind, const Body& body) {
  switch (kind) {
    case Grid::kSymmetric:
      return body.template operator()<Grid::kSymmetric>();
    case Grid::kAsymmetric:
      return body.template operator()<Grid::kAsymmetric>();
    case Grid::kSeq:
      return body.template operator()<Grid::kSeq>();
    case Grid::kTernary:
      return body.template operator()<Grid::kTernary>();
    case Grid::kBinary:
      return body.template operator()<Grid::kBinary>();
    case Grid::kBitNet:
      return body.template operator()<Grid::kBitNet>();
    case Grid::kOneBit:
      return body.template operator()<Grid::kOneBit>();
  }
}

}  // namespace satin::kernels
