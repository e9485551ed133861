#include "train/scaling_model.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace satin::train {
namespace {

// Bytes of memory traffic an element of fp32 masters: norms read g, AdamW reads w, g, m, v and writes w, m, v ...
constexpr double kAdamWBytes = 8 * 4;
// ... quantization reads w and writes Q(w), its backward reads w and a gradient and writes one.
double fold_bytes(double compute_bytes) { return 2 * 4 + compute_bytes; }
double quantization_bytes(double compute_bytes) { return 4 + compute_bytes + fold_bytes(compute_bytes); }

double gpus_on_host(const Group& group) { return static_cast<double>(group.size) / static_cast<double>(group.hosts); }

/// `passes` times around the ring: all-gather and reduce-scatter once, all-reduce twice.
double ring_s(const Cluster& cluster, const Group& group, double bytes, double passes) {
  const double size = static_cast<double>(group.size), hosts = static_cast<double>(group.hosts);
  const double network_hops = hosts - 1, host_hops = size - 1 - network_hops;
  return cluster.launch_s + passes * (host_hops * cluster.host_hop_s + network_hops * cluster.network_hop_s +
                                      (size - 1) / size * bytes / bus_bytes_per_s(cluster, group));
}

double tree_s(const Cluster& cluster, const Group& group, double bytes) {
  const double hops = (gpus_on_host(group) - 1) * cluster.host_hop_s +
                      std::log2(static_cast<double>(group.hosts)) * cluster.network_hop_s;
  return cluster.launch_s + 2 * hops + 2 * bytes / bus_bytes_per_s(cluster, group);
}

/// Transfers of a step: how long, how many bytes, and what the arithmetic waits for.
class Transfers {
 public:
  Transfers(const Cluster& cluster, PredictedTime& step) : cluster_(cluster), step_(step) {}

  double gather(const Group& group, double bytes, double times) {
    const double one_s = all_gather_s(cluster_, group, bytes);
    step_.gather_s += times * one_s;
    send(group, bytes, times);
    return one_s;
  }
  double scatter(const Group& group, double bytes, double times) {
    const double one_s = reduce_scatter_s(cluster_, group, bytes);
    step_.reduce_s += times * one_s;
    send(group, bytes, times);
    return one_s;
  }
  double all_reduce(const Group& group, double bytes, double times) {
    const double one_s = all_reduce_s(cluster_, group, bytes);
    step_.reduce_s += times * one_s;
    send(group, bytes, 2 * times);
    return one_s;
  }
  /// `times`: `edge_s` at the border of arithmetic that takes `room_s`, and `beside_s` that runs beside it.
  void expose(double edge_s, double beside_s, double room_s, double times = 1) {
    step_.exposed_s += times * (edge_s + std::max(0.0, beside_s - cluster_.overlap * room_s));
  }

 private:
  void send(const Group& group, double bytes, double times) {
    step_.sent_bytes += times * bytes * static_cast<double>(group.size - 1) / static_cast<double>(group.size);
  }
  const Cluster& cluster_;
  PredictedTime& step_;
};

}  // namespace

double bus_bytes_per_s(const Cluster& cluster, const Group& group) {
  SATIN_CHECK(group.size >= group.hosts && group.hosts >= 1, "a group of ", group.size, " on ", group.hosts, " hosts");
  if (group.hosts == 1) return cluster.host_bus_bytes_per_s;
  const double adapters = gpus_on_host(group) * cluster.network_bytes_per_s;
  return gpus_on_host(group) > 1 ? std::min(cluster.host_bus_bytes_per_s, adapters) : adapters;
}

double all_gather_s(const Cluster& cluster, const Group& group, double bytes) {
  return group.size == 1 || bytes == 0 ? 0 : ring_s(cluster, group, bytes, 1);
}
double reduce_scatter_s(const Cluster& cluster, const Group& group, double bytes) {
  return all_gather_s(cluster, group, bytes);
}
double all_reduce_s(const Cluster& cluster, const Group& group, double bytes) {
  if (group.size == 1 || bytes == 0) return 0;
  return std::min(ring_s(cluster, group, bytes, 2), tree_s(cluster, group, bytes));
}

PredictedTime predict_step(const Workload& w, const config::Train& train, const Layout& layout, const Cluster& cluster,
                           Gathered gathered) {
  const BatchShare share = share_of_step(train, layout.world_size);
  const bool hybrid = layout.strategy == Strategy::kHybrid && layout.num_shards() < layout.world_size;
  const bool each_micro_batch = layout.reduces_each_micro_batch();
  const Group world{layout.world_size, layout.num_hosts()};
  const Group shards{layout.num_shards(), hybrid || layout.num_shards() == 1 ? 1 : layout.num_hosts()};
  const Group replicas{hybrid ? layout.num_hosts() : 1, hybrid ? layout.num_hosts() : 1};
  const auto num_shards = static_cast<double>(layout.num_shards()), m = static_cast<double>(share.forwards);

  PredictedTime step;
  const double flops_per_s = cluster.utilisation * cluster.peak_flops_per_s;
  const double tokens = static_cast<double>(share.sequences * w.tokens_in_sequence) / m;  // of a micro-batch
  const double forward_s = tokens * w.student_flops_per_token / flops_per_s,
               backward_s = w.backward_forwards * forward_s;
  const double teacher_s = tokens * w.teacher_flops_per_token / flops_per_s;
  step.student_s = m * (forward_s + backward_s);
  step.teacher_s = m * teacher_s;
  step.update_s = ((w.held_elements + w.dense_elements) / num_shards + w.other_elements) * kAdamWBytes /
                      cluster.memory_bytes_per_s +
                  w.held_elements / num_shards * quantization_bytes(w.compute_bytes) / cluster.memory_bytes_per_s;
  step.tokens = static_cast<double>(train.micro_batch_size * train.gradient_accumulation_steps * w.tokens_in_sequence);

  Transfers transfers(cluster, step);
  const auto blocks = static_cast<double>(w.num_blocks);
  const double in_block = w.held_elements / blocks;
  const double gathered_bytes = gathered == Gathered::kCodes ? w.code_bits / 8 : w.compute_bytes;
  const double own_bytes = each_micro_batch || m == 1 ? w.compute_bytes : 4;
  const double sum_bytes = w.reduce_bytes > 0 ? w.reduce_bytes : own_bytes;
  const double sums = each_micro_batch ? m : 1;  // of each block, a step
  const double dense_sum_bytes = w.reduce_bytes > 0 ? w.reduce_bytes : 4;
  const double fold_s =
      w.held_elements / num_shards * fold_bytes(w.compute_bytes) / cluster.memory_bytes_per_s;  // beside dense sums
  if (layout.strategy == Strategy::kDdp) {
    const double sum_s = transfers.all_reduce(world, in_block * sum_bytes, blocks);
    transfers.expose(sum_s, (blocks - 1) * sum_s, backward_s);
    transfers.expose(0, transfers.all_reduce(world, w.dense_elements * dense_sum_bytes, 1), fold_s);
  } else if (layout.num_shards() > 1) {
    const double sum_s = transfers.scatter(shards, in_block * sum_bytes, sums * blocks);
    if (layout.gathers_blocks()) {  // the last block stays from forward to backward
      const double gather_s = transfers.gather(shards, in_block * gathered_bytes, m * (2 * blocks - 1));
      transfers.expose(gather_s, (blocks - 1) * gather_s, forward_s, m);
      transfers.expose(sum_s, (blocks - 1) * (gather_s + sum_s), backward_s, m);
      const auto reads = static_cast<double>(layout.splits_teacher() ? w.teacher_forwards : 0);
      const double teacher_gather_s =
          transfers.gather(shards, w.teacher_elements / blocks * w.compute_bytes, m * reads * blocks);
      transfers.expose(reads * teacher_gather_s, reads * (blocks - 1) * teacher_gather_s, teacher_s, m);
    } else {
      const double gather_s = transfers.gather(shards, in_block * gathered_bytes, blocks);
      transfers.expose(gather_s, (blocks - 1) * gather_s, forward_s);
      transfers.expose(sum_s, (blocks - 1) * sum_s, backward_s, sums);
    }
    transfers.expose(0, transfers.scatter(shards, w.dense_elements * dense_sum_bytes, 1), fold_s);
    transfers.expose(transfers.gather(shards, w.dense_elements * w.master_bytes, 1), 0, 0);
    const double across_s = transfers.all_reduce(replicas, in_block / num_shards * sum_bytes, sums * blocks);
    transfers.expose(sums * blocks * across_s, 0, 0);
    transfers.expose(transfers.all_reduce(replicas, w.dense_elements / num_shards * dense_sum_bytes, 1), 0, 0);
  }
  transfers.expose(transfers.all_reduce(world, w.other_elements * 4, 1), 0, 0);
  return step;
}

}  // namespace satin::train
