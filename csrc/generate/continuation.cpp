#include "generate/continuation.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "ops/replay.h"

namespace satin::generate {
namespace {

using Caches = std::vector<std::unique_ptr<models::KvCache>>;

std::vector<models::KvCache*> pointers(const Caches& caches) {
  std::vector<models::KvCache*> each;
  for (const auto& cache : caches) each.push_back(cache.get());
  return each;
}

/// Caches grow; products are of all sequences together, attention is each one's own.
class Growing : public Continuation {
 public:
  Growing(models::Decoder& decoder, Caches caches) : decoder_(decoder), caches_(std::move(caches)) {}

  at::Tensor next(const at::Tensor& ids) override {
    return decoder_.logits(decoder_.hidden(ids.unsqueeze(1), {.caches = pointers(caches_)}).select(1, -1));
  }
  void keep(const std::vector<int64_t>& places) override {
    Caches kept;
    for (const int64_t place : places) kept.push_back(std::move(caches_[static_cast<size_t>(place)]));
    caches_ = std::move(kept);
  }

 private:
  models::Decoder& decoder_;
  Caches caches_;
};

/// Caches have their size, and a step is the same launches each time. Sequences that ended go on unread.
class InPlace : public Continuation {
 public:
  InPlace(models::Decoder& decoder, const Caches& caches, int64_t places)
      : state_(decoder.start_steps(pointers(caches), places)),
        ids_(at::zeros({static_cast<int64_t>(caches.size())}, state_.positions.options())),
        open_(at::arange(ids_.size(0), ids_.options())),
        step_([this, &decoder] { logits_ = decoder.step(ids_, state_); }, ids_.device()) {}

  at::Tensor next(const at::Tensor& ids) override {
    if (open_.size(0) == ids_.size(0)) {
      ids_.copy_(ids);
      step_.run();
      return logits_;
    }
    ids_.index_copy_(0, open_, ids);
    step_.run();
    return logits_.index_select(0, open_);
  }
  void keep(const std::vector<int64_t>& places) override {
    open_ = open_.index_select(0, at::tensor(places, at::kLong).to(open_.device()));
  }

 private:
  models::StepState state_;
  at::Tensor ids_, open_, logits_;
  ops::Replay step_;
};

}  // namespace

Begun begin(models::Decoder& decoder, const std::vector<std::vector<int32_t>>& prompts, int64_t num_new,
            bool in_place) {
  Caches caches;
  std::vector<at::Tensor> last;
  for (const auto& prompt : prompts) {
    caches.push_back(std::make_unique<models::KvCache>());
    const at::Tensor ids = at::tensor(prompt, at::kInt).to(at::kLong).unsqueeze(0);
    last.push_back(decoder.hidden(ids, {.cache = caches.back().get()}).select(1, -1));
  }
  Begun begun{decoder.logits(at::cat(last)), nullptr};
  if (decoder.can_step() && (in_place || begun.logits.is_cuda())) {
    int64_t longest = 0;
    for (const auto& cache : caches) longest = std::max(longest, cache->length);
    begun.rest = std::make_unique<InPlace>(decoder, caches, longest + num_new);
  } else {
    begun.rest = std::make_unique<Growing>(decoder, std::move(caches));
  }
  return begun;
}

}  // namespace satin::generate
