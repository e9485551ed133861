// A teacher that is too large for each process: of the matrices of its blocks each has its rows, and in a pass they are
// whole a block at a time, gathered a block ahead.
#pragma once
#include <map>

#include "dist/row_lists.h"
#include "models/decoder.h"

namespace satin::train {

class SplitTeacher {
 public:
  /// Keeps this process's rows of the matrices of `teacher`, which must be whole and compute without gradients. From
  /// here on every pass through it is made by all of `shards` together. The teacher and `shards` outlive this.
  SplitTeacher(models::Decoder& teacher, dist::Communicator& shards);
  ~SplitTeacher();
  SplitTeacher(const SplitTeacher&) = delete;
  SplitTeacher& operator=(const SplitTeacher&) = delete;

 private:
  struct Block {
    std::vector<at::Tensor> wholes, rows;
    std::vector<int64_t> num_rows;
    dist::RowGather gather;
    bool gathering = false;
  };
  void start_gather(int64_t block);
  void before_forward(int64_t block);
  void after_forward(int64_t block);

  models::Decoder& teacher_;
  dist::Communicator& shards_;
  std::map<int64_t, Block> blocks_;
};

}  // namespace satin::train
