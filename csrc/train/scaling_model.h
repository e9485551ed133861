// How long a step takes on many GPUs: an alpha-beta model, in which a message of n bytes takes alpha + n / beta.
// Constants are of H100 hosts (8 GPUs on NVLink, a 400 Gb/s adapter a GPU); all are parameters, as measured figures
// replace them. tests/bench/scaling.py writes tables of it and compares it with what was measured.
//
// Collectives of W processes, g = W / hosts of them on each host, n bytes of the whole message:
//   bus      B = host_bus on one host; across hosts min(host_bus, g network), or network where g = 1:
//            the g rings through a host each have an adapter of their own, and all of them cross its NVLink
//   ring     all-gather, reduce-scatter: launch + (W - hosts) host_hop + (hosts - 1) network_hop + (W - 1)/W n / B
//            (one host: W - 1 host hops); all-reduce: twice the hops and twice the bytes
//   tree     all-reduce: launch + 2 ((g - 1) host_hop + log2(hosts) network_hop) + 2 n / B; the faster one is taken
// n / B is NCCL's "bus bandwidth" convention: what nccl-tests prints as busbw is B.
//
// Bytes that each process sends a step, of P quantized weights in c bytes, m micro-batches, r bytes a gradient
// (c; 4 in ddp and zero1 with m > 1, whose sums over micro-batches come first; parallel.reduce_dtype):
//   ddp      2 P r (W - 1)/W
//   zero1    P (r + c) (W - 1)/W
//   zero2    P (m r + c) (W - 1)/W
//   fsdp     P m (r + 2 c) (W - 1)/W, and a split teacher's P c a forward of it
//   hybrid   fsdp with W = GPUs of a host, and 2 m (hosts - 1)/hosts of its own rows' sums across hosts
// Embeddings, heads and other dense matrices are reduced in fp32 once a step and gathered in the masters' dtype (ddp:
// reduced); norms and biases are reduced in fp32.
//
// Time: arithmetic at `utilisation` of the peak; AdamW, quantization and its backward at memory bandwidth. Of a
// block's transfers the first (gather) or the last (sum) is exposed, the others where they exceed `overlap` of the
// arithmetic that they run beside. Gradients of the embedding come last and are summed beside the quantizers' backward
// (ddp on few GPUs exchanges looked-up rows instead, train/lookup_gradient.h: not in the model);
// its rows are read first: exposed; sums across hosts begin when those inside have ended.
// Source: Rajbhandari et al. 2020 (ZeRO), section 7; Zhao et al. 2023 (FSDP), section 3; NCCL, PERFORMANCE.md of
// nccl-tests, and its own cost model (latencies of ring and tree, "Simple" protocol).
#pragma once
#include "train/layout.h"

namespace satin::train {

struct Cluster {
  double host_bus_bytes_per_s = 360e9;  ///< busbw inside a host; NVLink 4 is 450e9 each way, NCCL counts on 360e9
  double network_bytes_per_s = 50e9;    ///< a GPU's adapter, each way: 400 Gb/s
  double launch_s = 8.4e-6;             ///< of a collective
  double host_hop_s = 3.4e-6, network_hop_s = 14e-6;
  double peak_flops_per_s = 989e12;    ///< dense bf16
  double memory_bytes_per_s = 3.0e12;  ///< of a plain copy, read and written: measured on an H100
  /// Of the peak, in model flops, without the update: measured (1.2b, 8 x 2,048 tokens, cross-entropy: 249 ms).
  double utilisation = 0.55;
  double overlap = 0.8;  ///< part of arithmetic's time that transfers can hide under; assumed
};

/// Processes that call a collective together.
struct Group {
  int64_t size = 1, hosts = 1;
};
double bus_bytes_per_s(const Cluster& cluster, const Group& group);
/// Seconds; 0 in a group of one. `bytes`: of the whole message.
double all_gather_s(const Cluster& cluster, const Group& group, double bytes);
double reduce_scatter_s(const Cluster& cluster, const Group& group, double bytes);
double all_reduce_s(const Cluster& cluster, const Group& group, double bytes);

/// A student and its teacher as the model sees them.
struct Workload {
  double held_elements = 0;   ///< quantized weights that are split by rows
  double dense_elements = 0;  ///< matrices in full precision: embeddings, heads
  double other_elements = 0;  ///< on every process: norms, biases
  int64_t num_blocks = 1;
  double compute_bytes = 2, master_bytes = 4;
  double reduce_bytes = 0;             ///< parallel.reduce_dtype; 0: the gradients' own
  double code_bits = 16;               ///< a held weight's mean code with its share of scales and zero points
  double teacher_elements = 0;         ///< in its blocks; 0: no teacher runs
  int64_t teacher_forwards = 0;        ///< for each of the student's
  double student_flops_per_token = 0;  ///< forward
  double backward_forwards = 2;        ///< flops of a backward in those of a forward; 3 where it is computed again
  double teacher_flops_per_token = 0;  ///< of all its forwards
  int64_t tokens_in_sequence = 0;      ///< of the text
};

/// What quantized weights travel as.
enum class Gathered { kWeights, kCodes };

/// One step of the slowest process.
struct PredictedTime {
  double student_s = 0, teacher_s = 0, update_s = 0;  ///< arithmetic
  double reduce_s = 0, gather_s = 0;                  ///< all transfers, hidden or not
  double exposed_s = 0;                               ///< of them, what arithmetic waits for
  double sent_bytes = 0;                              ///< by one GPU
  double tokens = 0;                                  ///< of all processes

  double total_s() const { return student_s + teacher_s + update_s + exposed_s; }
  double tokens_per_second() const { return tokens / total_s(); }
};

PredictedTime predict_step(const Workload& workload, const config::Train& train, const Layout& layout,
                           const Cluster& cluster, Gathered gathered = Gathered::kWeights);

}  // namespace satin::train
