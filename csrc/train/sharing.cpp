#include "train/sharing.h"

#include <unistd.h>

#include <map>

#include "core/error.h"
#include "core/log.h"
#include "ops/device.h"
#include "train/cluster_plan.h"
#include "train/stored_teacher.h"

namespace satin::train {
namespace {

/// Ranks by host, the hosts in the order of their first rank.
std::vector<std::vector<int64_t>> ranks_by_host(dist::Communicator& world) {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  std::map<std::string, size_t> index;
  std::vector<std::vector<int64_t>> hosts;
  int64_t rank = 0;
  for (const std::string& host : world.gather(name)) {
    const auto [at, is_new] = index.try_emplace(host, hosts.size());
    if (is_new) hosts.emplace_back();
    hosts[at->second].push_back(rank++);
  }
  return hosts;
}

/// fsdp inside each host, ddp across.
void share_inside_hosts(const std::vector<std::vector<int64_t>>& hosts, dist::Sharing& sharing) {
  for (const auto& host : hosts)
    if (host.size() != hosts[0].size())
      throw UserError(cat("parallel.strategy hybrid: expected equally many processes on each host, found ",
                          hosts[0].size(), " and ", host.size()));
  const int64_t rank = sharing.world->rank();
  std::vector<int64_t> inside, across;
  for (const auto& host : hosts)
    if (std::find(host.begin(), host.end(), rank) != host.end()) inside = host;
  const auto place = std::find(inside.begin(), inside.end(), rank) - inside.begin();
  for (const auto& host : hosts) across.push_back(host[static_cast<size_t>(place)]);
  sharing.shards = sharing.world->subgroup(inside);
  sharing.replicas = sharing.world->subgroup(across);
}

}  // namespace

dist::Sharing make_sharing(const config::Config& config, std::shared_ptr<dist::Communicator> world, at::Device device,
                           at::ScalarType compute_dtype) {
  dist::Sharing sharing;
  sharing.world = std::move(world);
  const int64_t size = sharing.world->size();
  if (size == 1) return sharing;
  share_of_step(config.train, size);  // for its error
  const auto hosts = ranks_by_host(*sharing.world);
  Job job;
  job.world_size = size;
  job.gpus_per_host = static_cast<int64_t>(hosts[0].size());
  if (device.is_cuda()) job.device_memory_bytes = ops::total_memory_bytes(device);
  std::optional<models::ModelConfig> teacher;
  if (runs_teacher(config)) teacher = models::load_model_config(teacher_path(config));
  const Layout layout = resolve_layout(config, teacher ? &*teacher : nullptr, compute_dtype, device, job);
  switch (layout.strategy) {
    case Strategy::kDdp:
      sharing.replicas = sharing.world;
      break;
    case Strategy::kHybrid:
      share_inside_hosts(hosts, sharing);
      break;
    default:
      sharing.shards = sharing.world;
  }
  sharing.gathers_blocks = layout.gathers_blocks();
  sharing.reduces_each_micro_batch = layout.reduces_each_micro_batch();
  sharing.splits_teacher = layout.splits_teacher();
  sharing.gathers_codes = layout.gathers_codes();
  if (config.parallel.reduce_dtype != "auto")
    sharing.reduce_dtype = config.parallel.reduce_dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  log_info(cat("parallel.strategy ", strategy_name(layout.strategy), ": ", size, " processes on ", hosts.size(),
               hosts.size() == 1 ? " host" : " hosts", layout.splits_teacher() ? ", the teacher split too" : ""));
  return sharing;
}

}  // namespace satin::train
