// Who this process is among those of its job, read from the environment that a launcher set.
#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <string>

#include "dist/communicator.h"

namespace satin::dist {

struct Launch {
  std::string launcher = "alone";  ///< alone | torchrun | srun | mpirun | --gpus
  int64_t rank = 0, size = 1;
  int64_t local_rank = 0;  ///< among the processes of this host: the GPU's number
  bool one_host = true;
  std::string host = "localhost";  ///< this one's name
  std::string master_address = "127.0.0.1";
  int64_t master_port = 0;
  bool store_is_served = false;  ///< by the launcher; else rank 0 serves it
  std::string store_prefix;      ///< apart from the keys of others, and of this job's earlier starts

  /// "rank 1 of 4 on HOST (torchrun), GPU 1".
  std::string text(bool on_gpu) const;
};

/// torchrun (RANK, WORLD_SIZE, ...), srun (SLURM_PROCID, ...), mpirun (OMPI_COMM_WORLD_RANK, ...), or alone. Throws
/// UserError that names the variable when the environment is partial or contradicts itself.
Launch detect_launch();

/// Meets the other ranks and makes the group. `device`: a CPU, or this rank's GPU. Throws PeerError, naming them, when
/// ranks do not come within timeout_s. One rank: the group of one.
std::shared_ptr<Communicator> join(const Launch& launch, c10::Device device, double timeout_s);

}  // namespace satin::dist
