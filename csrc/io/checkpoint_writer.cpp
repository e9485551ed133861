#include "io/checkpoint_writer.h"

#include <ATen/Functions.h>

#include "core/error.h"
#include "core/log.h"
#include "dist/together.h"
#include "io/checkpoint_part.h"

namespace satin::io {

AsyncCheckpointWriter::AsyncCheckpointWriter(std::filesystem::path run_directory, int64_t keep,
                                             std::shared_ptr<dist::Communicator> ranks)
    : run_directory_(std::move(run_directory)),
      keep_(keep),
      ranks_(std::move(ranks)),
      thread_ranks_(ranks_->duplicate()) {}

AsyncCheckpointWriter::~AsyncCheckpointWriter() {
  try {
    wait();
  } catch (const std::exception& error) {
    log_warning(cat("a checkpoint was not written: ", error.what()));
  }
}

void AsyncCheckpointWriter::wait() {
  if (pending_.valid()) pending_.get();
}

void AsyncCheckpointWriter::save(const CheckpointContents& contents) {
  wait();
  CheckpointPart part = part_of(contents, *ranks_);
  dist::together(*ranks_, [&] {
    size_t i = 0;
    for (auto& file : part.files)
      for (auto& run : file.runs) {
        if (i == host_copies_.size()) host_copies_.emplace_back();
        at::Tensor& copy = host_copies_[i++];
        if (!copy.defined() || copy.numel() != run.elements.numel() || copy.scalar_type() != run.elements.scalar_type())
          copy = at::empty({run.elements.numel()}, run.elements.scalar_type());
        run.elements = copy.copy_(run.elements);
      }
    host_copies_.resize(i);
  });
  pending_ = std::async(std::launch::async, [this, part = std::move(part)]() mutable {
    write_checkpoint(run_directory_, std::move(part), keep_, *thread_ranks_);
  });
}

}  // namespace satin::io
