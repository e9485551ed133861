// The benchmarks of `satin bench`, one file each.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "bench/measurement.h"
#include "models/model_config.h"
#include "ops/decode_tiles.h"

namespace satin::bench {

struct Options {
  at::Device device = at::kCPU;
  std::string only;  ///< measure names that contain this text
  /// Called with each measurement as it is made.
  std::function<void(const Measurement&)> report;
};

struct Benchmark {
  std::string name, help;
  std::function<void(const Options&)> run;
};
const std::vector<Benchmark>& benchmarks();

/// Fake quantization of activations and KV-cache rows with a scale a row, beside the floor of its bytes: read and
/// written once, at the bandwidth of a plain copy in the same run.
void bench_act_quant(const Options& options);

/// Tokens after a context of 512, one at a time with everything in one graph: bfloat16, and packed weights with an
/// 8-bit embedding and head, beside the floor of the bytes read (weights and cache); then 4 bits after 4,096 tokens,
/// with keys and values as they are, int8 and int4.
void bench_decode(const Options& options);

/// Fake quantization of one weight and of whole models' weights: forward and backward, beside the bytes' floor (weights
/// and gradients only, at the bandwidth of a plain copy in the same run).
void bench_fake_quant(const Options& options);

/// LM head and losses from hidden states to gradients, and the losses' kernel alone beside the floor of its bytes.
void bench_head(const Options& options);

/// Whole training steps of a quantized model by loss, with the teacher in memory, its neighbours stored, or all of it
/// stored; and the teacher's forward alone.
void bench_loss_step(const Options& options);

/// From gradients to the next weights of a whole quantized model: norms, clipping and AdamW beside the floor of their
/// bytes and PyTorch's kernels.
void bench_optimizer(const Options& options);

/// Products of a few rows with packed low-bit weights, beside the floor of the weights' bytes and PyTorch's product
/// with the dense matrix (fp32 on the CPU, bfloat16 on CUDA). On CUDA many rows too, and what public kernels are timed
/// with (tests/bench/low_bit_peers.py).
void bench_packed_linear(const Options& options);

/// Whole training steps with cross-entropy, dense and quantized, random weights and tokens: what quantization adds.
void bench_step(const Options& options);

/// Every tile of the decode kernels on the matrices of some models: what is faster than the rule's, for
/// SATIN_DECODE_TILES or csrc/ops/decode_tiles/. options.only leaves measurements out, and their lines. Throws
/// UserError where there is no GPU for them.
ops::DecodeTiles tune_decode(const Options& options, const std::string& version);

/// copy_bandwidth (timer.h), reported as a measurement too.
double report_copy(const Options& options);
/// The shapes that benchmarks speak of, as Llama models: tiny, 29m, 135m, 1.2b (Llama-3.2-1B).
models::ModelConfig named_shape(const std::string& name);
/// Of master weights, in a measurement's name.
const char* dtype_name(at::ScalarType master);

}  // namespace satin::bench
