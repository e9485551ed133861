#include "dist/launch.h"

#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "core/error.h"
#include "dist/node_list.h"

namespace satin::dist {
namespace {

std::optional<std::string> text_of(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? std::optional<std::string>(value) : std::nullopt;
}

std::optional<int64_t> number_of(const char* name, int64_t lowest, int64_t highest) {
  const auto text = text_of(name);
  if (!text) return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value < lowest || value > highest)
    throw UserError(
        cat("environment: ", name, ": expected a number from ", lowest, " to ", highest, ", found '", *text, "'"));
  return value;
}

constexpr int64_t kMostRanks = 1 << 20;

[[noreturn]] void missing(const char* name, const char* because_of) {
  throw UserError(cat("environment: ", because_of, " is set, but ", name, " is not: set it, or unset ", because_of,
                      " to run one process"));
}

int64_t needed(const char* name, int64_t lowest, int64_t highest, const char* because_of) {
  const auto value = number_of(name, lowest, highest);
  if (!value) missing(name, because_of);
  return *value;
}

/// Names of the variables that say who a process is.
struct Variables {
  const char *launcher, *rank, *size, *local_rank, *local_size;
};

Launch read(const Variables& v) {
  Launch launch;
  launch.launcher = v.launcher;
  launch.size = needed(v.size, 1, kMostRanks, v.rank);
  launch.rank = needed(v.rank, 0, kMostRanks, v.size);
  if (launch.rank >= launch.size)
    throw UserError(cat("environment: ", v.rank, "=", launch.rank, ": expected less than ", v.size, "=", launch.size));
  if (launch.size == 1) return launch;
  launch.local_rank = needed(v.local_rank, 0, kMostRanks, v.rank);
  const int64_t local_size = needed(v.local_size, 1, kMostRanks, v.rank);
  if (launch.local_rank >= local_size || local_size > launch.size || launch.local_rank > launch.rank)
    throw UserError(cat("environment: ", v.rank, "=", launch.rank, ", ", v.size, "=", launch.size, ", ", v.local_rank,
                        "=", launch.local_rank, " and ", v.local_size, "=", local_size, " contradict each other"));
  launch.one_host = local_size == launch.size;
  return launch;
}

Launch from_torchrun() {
  Launch launch = read({"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"});
  if (launch.size == 1) return launch;
  const auto address = text_of("MASTER_ADDR");
  if (!address) missing("MASTER_ADDR", "RANK");
  launch.master_address = *address;
  launch.master_port = needed("MASTER_PORT", 1, 65535, "RANK");
  launch.store_is_served = text_of("TORCHELASTIC_USE_AGENT_STORE") == "True";
  // After a restart by torchrun the store still holds the keys of the processes that were lost.
  launch.store_prefix = cat("satin/", text_of("TORCHELASTIC_RESTART_COUNT").value_or("0"));
  if (const auto spawned = text_of("SATIN_LAUNCHER")) launch.launcher = *spawned;
  return launch;
}

Launch from_srun() {
  Launch launch;
  const bool one_host =
      number_of("SLURM_STEP_NUM_NODES", 1, kMostRanks).value_or(number_of("SLURM_NNODES", 1, kMostRanks).value_or(2)) ==
      1;
  // Slurm does not tell a task how many are on its host.
  launch = read({"srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS"});
  launch.one_host = one_host || launch.size == 1;
  if (launch.size == 1) return launch;
  const auto node_list =
      text_of("SLURM_STEP_NODELIST") ? text_of("SLURM_STEP_NODELIST") : text_of("SLURM_JOB_NODELIST");
  const auto address = text_of("MASTER_ADDR");
  if (!address && !node_list) missing("SLURM_JOB_NODELIST", "SLURM_PROCID");
  launch.master_address = address ? *address : first_host(*node_list);
  if (const auto port = number_of("MASTER_PORT", 1, 65535))
    launch.master_port = *port;
  else  // the same for all tasks of a job, different for jobs that share a host
    launch.master_port = 20000 + needed("SLURM_JOB_ID", 0, INT64_MAX, "SLURM_PROCID") % 12000;
  launch.store_prefix = cat("satin/", text_of("SLURM_STEP_ID").value_or("0"));
  return launch;
}

Launch from_mpirun() {
  Launch launch = read({"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                        "OMPI_COMM_WORLD_LOCAL_SIZE"});
  if (launch.size == 1) return launch;
  const auto address = text_of("MASTER_ADDR");
  if (!address && !launch.one_host)
    throw UserError(
        "environment: the job of mpirun spans hosts, and MASTER_ADDR is not set: pass the host of rank 0, mpirun -x "
        "MASTER_ADDR=HOST");
  launch.master_address = address.value_or("127.0.0.1");
  launch.master_port = number_of("MASTER_PORT", 1, 65535).value_or(29500);
  launch.store_prefix = "satin/0";
  return launch;
}

}  // namespace

std::string Launch::text(bool on_gpu) const {
  return cat("rank ", rank, " of ", size, " on ", host, " (", launcher, ")", on_gpu ? cat(", GPU ", local_rank) : "");
}

Launch detect_launch() {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  // In a batch script, outside of srun, Slurm's variables are there too, and the one process is alone.
  const bool in_batch_script = text_of("ENVIRONMENT") == "BATCH" && !text_of("SLURM_STEP_ID");
  Launch launch;
  if (text_of("RANK") || text_of("WORLD_SIZE"))
    launch = from_torchrun();
  else if (text_of("OMPI_COMM_WORLD_RANK") || text_of("OMPI_COMM_WORLD_SIZE"))
    launch = from_mpirun();
  else if (text_of("SLURM_PROCID") && !in_batch_script)
    launch = from_srun();
  launch.host = host;
  return launch;
}

}  // namespace satin::dist
