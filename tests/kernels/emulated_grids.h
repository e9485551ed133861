// The grids that emulation tests run.
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

struct GridCase {
  Grid kind;
  int bits;
};
constexpr GridCase kGrids[] = {{Grid::kSymmetric, 2},  {Grid::kSymmetric, 8}, {Grid::kAsymmetric, 2},
                               {Grid::kAsymmetric, 8}, {Grid::kSeq, 2},       {Grid::kTernary, 2},
                               {Grid::kBinary, 1},     {Grid::kBitNet, 2},    {Grid::kOneBit, 1}};

}  // namespace satin::kernels
