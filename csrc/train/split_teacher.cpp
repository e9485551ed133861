#include "train/split_teacher.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "nn/tensor_memory.h"

namespace satin::train {

SplitTeacher::SplitTeacher(models::Decoder& teacher, dist::Communicator& shards) : teacher_(teacher), shards_(shards) {
  const nn::RowShard shard{shards.rank(), shards.size()};
  for (const nn::Parameter& parameter : teacher.parameters().all()) {
    const int64_t block = nn::block_of(parameter.name);
    if (block < 0 || parameter.value.dim() != 2) continue;
    SATIN_CHECK(!parameter.value.requires_grad() && !parameter.is_split(), parameter.name);
    const int64_t num_rows = parameter.value.size(0);
    const nn::RowRange own = nn::rows_of(shard, num_rows);
    if (own.count == num_rows) continue;
    Block& of = blocks_[block];
    of.rows.push_back(parameter.value.narrow(0, own.first, own.count).clone());
    of.wholes.push_back(parameter.value);
    of.num_rows.push_back(num_rows);
    nn::drop_memory(parameter.value);
  }
  teacher.observe_blocks([this](models::BlockEvent event, int64_t block) {
    if (event == models::BlockEvent::kBeforeForward) before_forward(block);
    if (event == models::BlockEvent::kAfterForward) after_forward(block);
  });
}

SplitTeacher::~SplitTeacher() { teacher_.observe_blocks({}); }

void SplitTeacher::start_gather(int64_t block) {
  const auto found = blocks_.find(block);
  if (found == blocks_.end() || found->second.gathering) return;
  found->second.gather = dist::RowGather(shards_, found->second.rows, found->second.num_rows);
  found->second.gathering = true;
}

void SplitTeacher::before_forward(int64_t block) {
  start_gather(block);
  if (const auto found = blocks_.find(block); found != blocks_.end()) {
    const std::vector<at::Tensor> wholes = found->second.gather.finish();
    for (size_t i = 0; i < wholes.size(); ++i) nn::move_memory(found->second.wholes[i], wholes[i]);
    found->second.gathering = false;
  }
  start_gather(block + 1);
}

void SplitTeacher::after_forward(int64_t block) {
  if (const auto found = blocks_.find(block); found != blocks_.end())
    for (const at::Tensor& whole : found->second.wholes) nn::drop_memory(whole);
}

}  // namespace satin::train
