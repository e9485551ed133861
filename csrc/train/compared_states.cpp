#include "train/compared_states.h"

#include "core/error.h"
#include "losses/hidden_states.h"

namespace satin::train {

ComparedStates::ComparedStates(const config::HiddenStates& config, int64_t num_layers)
    : config_(config), num_layers_(num_layers) {}

models::ForwardOptions ComparedStates::of_student(models::ForwardOptions options) {
  if (!enabled()) return options;
  options.after_layer = [this](int64_t layer, const at::Tensor& stream) {
    if (compares(layer)) student_.push_back(stream);
  };
  return options;
}

models::ForwardOptions ComparedStates::of_teacher(models::ForwardOptions options, const at::Tensor& weights) {
  if (!enabled()) return options;
  options.after_layer = [this, weights](int64_t layer, const at::Tensor& stream) {
    if (!compares(layer)) return;
    SATIN_CHECK(gradients_.size() < student_.size(), "the teacher has more layers than the student");
    const at::Tensor& own = student_[gradients_.size()];
    const losses::HiddenStateLoss loss = losses::hidden_state_loss(own.detach().flatten(0, 1), stream.flatten(0, 1),
                                                                   weights.reshape(-1).to(own.scalar_type()));
    sum_ = sum_.defined() ? sum_ + loss.value : loss.value;
    gradients_.push_back(loss.grad.view_as(own));
  };
  return options;
}

at::Tensor ComparedStates::value() const {
  SATIN_CHECK(!gradients_.empty() && gradients_.size() == student_.size(), gradients_.size(),
              " layers of the teacher, ", student_.size(), " of the student");
  return sum_ / static_cast<double>(student_.size());
}

void ComparedStates::add_to(std::vector<at::Tensor>& roots, std::vector<at::Tensor>& gradients) {
  for (size_t i = 0; i < student_.size(); ++i) {
    roots.push_back(student_[i]);
    gradients.push_back(gradients_[i].mul_(config_.weight / static_cast<double>(student_.size())));
  }
}

}  // namespace satin::train
