// Stands in for kernels/cuda when Satin is built without a CUDA toolkit.
#include <stdexcept>
#include <string>

#include "kernels/act_quant.h"
#include "kernels/adamw.h"
#include "kernels/add_rows.h"
#include "kernels/cached_attention.h"
#include "kernels/clip_search.h"
#include "kernels/data_scale.h"
#include "kernels/fake_quant.h"
#include "kernels/logit_losses.h"
#include "kernels/packed_a16.h"
#include "kernels/packed_a8.h"
#include "kernels/packed_matmul.h"
#include "kernels/packed_pack.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/step_ends.h"
#include "kernels/swiglu.h"

namespace satin::kernels {
namespace {

[[noreturn]] void fail(const std::string& kernel) {
  throw std::runtime_error(kernel + ": this build of Satin has no CUDA kernels; build it where nvcc is on PATH");
}

}  // namespace

void clip_search_cuda(const FakeQuantGrid&, Extent, Dtype, const void*, const void*, void*, void*, CUstream_st*) {
  fail("clip_search_cuda");
}

void act_quant_cuda(ActivationFormat, Extent, Dtype, const void*, void*, CUstream_st*) { fail("act_quant_cuda"); }

void act_quant_codes_cuda(ActivationFormat, Extent, Dtype, const void*, uint8_t*, void*, CUstream_st*) {
  fail("act_quant_codes_cuda");
}

void act_quant_static_cuda(ActivationFormat, Extent, Dtype, const void*, const void*, void*, CUstream_st*) {
  fail("act_quant_static_cuda");
}

int64_t act_quant_num_sums(Extent) { fail("act_quant_num_sums"); }

void act_quant_static_backward_cuda(ActivationFormat, Extent, Dtype, const void*, const void*, const void*, void*,
                                    void*, double*, CUstream_st*) {
  fail("act_quant_static_backward_cuda");
}

void logit_losses_cuda(const LogitLosses&, Extent, Dtype, const void*, const void*, const int64_t*, const void*, Dtype,
                       void*, void*, CUstream_st*) {
  fail("logit_losses_cuda");
}

void stored_losses_cuda(const LogitLosses&, Extent, Dtype, const void*, const StoredTopK&, const int64_t*, const void*,
                        Dtype, void*, void*, CUstream_st*) {
  fail("stored_losses_cuda");
}

void top_k_cuda(Extent, int64_t, Dtype, const void*, void*, int64_t*, CUstream_st*) { fail("top_k_cuda"); }

int64_t rms_norm_num_partials_cuda(Extent) { fail("rms_norm_num_partials_cuda"); }

void rms_norm_cuda(Extent, double, Dtype, Dtype, const RmsNormForward&, CUstream_st*) { fail("rms_norm_cuda"); }

void rms_norm_backward_cuda(Extent, Dtype, Dtype, const RmsNormBackward&, CUstream_st*) {
  fail("rms_norm_backward_cuda");
}

void rope_cuda(const RopeShape&, bool, Dtype, const void*, const RopeStrides&, const void*, const void*, void*,
               const RopeStrides&, CUstream_st*) {
  fail("rope_cuda");
}

template <class T>
void adamw_cuda(std::span<const AdamWTask<T>>, const AdamWBetas&, const float*, CUstream_st*) {
  fail("adamw_cuda");
}
template void adamw_cuda(std::span<const AdamWTask<float>>, const AdamWBetas&, const float*, CUstream_st*);
template void adamw_cuda(std::span<const AdamWTask<double>>, const AdamWBetas&, const float*, CUstream_st*);

void add_rows_cuda(const AddRows<float>&, Dtype, CUstream_st*) { fail("add_rows_cuda"); }

void add_rows_cuda(const AddRows<double>&, CUstream_st*) { fail("add_rows_cuda"); }

void swiglu_cuda(int64_t, Dtype, const void*, const void*, void*, CUstream_st*) { fail("swiglu_cuda"); }

void swiglu_backward_cuda(int64_t, Dtype, const void*, const void*, const void*, void*, void*, CUstream_st*) {
  fail("swiglu_backward_cuda");
}

void data_scale_cuda(const FakeQuantGrid&, std::span<const DataScaleTask>, Dtype, CUstream_st*) {
  fail("data_scale_cuda");
}

void fake_quant_cuda(const FakeQuantGrid&, std::span<const FakeQuantTask>, Dtype, Dtype, CUstream_st*) {
  fail("fake_quant_cuda");
}

void fake_quant_codes_cuda(const FakeQuantGrid&, Extent, Dtype, const void*, const void*, const void*, uint8_t*, void*,
                           int32_t*, CUstream_st*) {
  fail("fake_quant_codes_cuda");
}

void fake_quant_backward_cuda(const FakeQuantGrid&, std::span<const FakeQuantBackwardTask>, Dtype, Dtype,
                              CUstream_st*) {
  fail("fake_quant_backward_cuda");
}

void packed_a16_cuda(const PackedA16Args&, CUstream_st*) { fail("packed_a16_cuda"); }

void packed_a8_cuda(const PackedA8Args&, CUstream_st*) { fail("packed_a8_cuda"); }

void a8_codes_cuda(Extent, Dtype, const void*, uint8_t*, float*, void*, CUstream_st*) { fail("a8_codes_cuda"); }

void pack_weight_cuda(const PackArgs&, CUstream_st*) { fail("pack_weight_cuda"); }

void packed_decode_cuda(const DecodeArgs&, CUstream_st*) { fail("packed_decode_cuda"); }

void cached_attention_cuda(const CachedAttention&, Half, CUstream_st*) { fail("cached_attention_cuda"); }

void most_likely_cuda(const MostLikely&, CUstream_st*) { fail("most_likely_cuda"); }

void packed_dequantize_cuda(const DequantizeArgs&, CUstream_st*) { fail("packed_dequantize_cuda"); }

}  // namespace satin::kernels
