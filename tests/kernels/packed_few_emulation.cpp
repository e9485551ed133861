// The kernel for two to four rows as C++, beside packed_decode_emulation_test.cpp, whose kernel calls it.
#include "kernels/cuda/packed_few.cu"
