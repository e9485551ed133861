// How the processes of a job share one model.
#pragma once
#include <optional>
#include <vector>

#include "dist/row_lists.h"

namespace satin::dist {

/// Every rank is in one group of each kind. ddp: shards of one rank, replicas of all; zero1, zero2, fsdp: shards of
/// all, replicas of one; hybrid: shards of a host, replicas across hosts.
struct Sharing {
  std::shared_ptr<Communicator> world = Communicator::alone();
  std::shared_ptr<Communicator> shards = Communicator::alone();    ///< own one copy of the model together, by rows
  std::shared_ptr<Communicator> replicas = Communicator::alone();  ///< own the same rows
  bool gathers_blocks = false;                      ///< whole weights of a block are in memory only while it is used
  bool reduces_each_micro_batch = false;            ///< else once a step
  std::optional<at::ScalarType> reduce_dtype = {};  ///< of sums of gradients; none: the gradients' own

  bool gathers_codes = false;   ///< quantized weights travel as codes and scales
  bool splits_teacher = false;  ///< the teacher's weights too are rows, and whole by block

  /// Seconds so far that this process stood still for the others (Communicator::waited_s).
  double waited_s() const;
  bool is_split() const { return shards->size() > 1; }
  at::ScalarType dtype_for(const at::Tensor& gradient) const;
};

/// Of one process: nothing is shared.
const Sharing& not_shared();

/// Gradients of whole matrices on every rank -> their sums over all ranks: of `split` ones this rank's rows, of others
/// the whole.
class GradientReduce {
 public:
  GradientReduce() = default;
  /// Starts. One dtype; the gradients are this object's from now on.
  GradientReduce(const Sharing& sharing, const std::vector<at::Tensor>& gradients, bool split);
  std::vector<at::Tensor> finish();

 private:
  const Sharing* sharing_ = nullptr;
  bool split_ = false;
  RowReduce rows_;
  ListReduce list_;
};

}  // namespace satin::dist
