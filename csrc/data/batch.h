// What a training step reads.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace satin::data {

/// What a teacher cache holds of a batch's positions (data/teacher_cache.h); undefined without one.
struct StoredTeacher {
  at::Tensor ids;                  ///< [B, T, k] int32
  at::Tensor logits;               ///< [B, T, k] fp32, minus the row's largest
  at::Tensor log_total, log_rest;  ///< [B, T] fp32
  at::Tensor tokens = {};          ///< [B, T] int64: the perturbed copy that the teacher has read; undefined: the text
  bool defined() const { return ids.defined(); }
};

/// B sequences of T tokens, on the CPU (pinned when CUDA is used).
struct Batch {
  at::Tensor tokens;           ///< [B, T] int64
  at::Tensor loss_mask;        ///< [B, T] bool: position t's prediction of token t+1 is scored (last position: never)
  at::Tensor document_ids;     ///< [B, T] int64, rising within a window; undefined when attention crosses documents
  at::Tensor document_starts;  ///< [B, T] bool: token t is the first of its document
  std::vector<uint64_t> sample_ids;  ///< [B] global sample index: what random draws are a function of
  bool idle = false;   ///< stands in for samples that a process has not: nothing of it is scored or counted
  uint64_t epoch = 0;  ///< of the first sample
  StoredTeacher teacher = {};
};

}  // namespace satin::data
