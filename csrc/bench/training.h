// A model in training, as the trainer steps it, on the same random tokens each time.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "bench/measurement.h"
#include "optim/adamw.h"
#include "report/throughput.h"
#include "train/step.h"

namespace satin::bench {

struct TrainingOptions {
  std::string shape;   ///< see named_shape
  std::string method;  ///< "dense", or a quantizer at 2 bits in groups of 64
  int64_t sequences = 1, length = 1;
  at::Device device = at::kCPU;
  config::Loss loss;  ///< a teacher of the same shape is made where it needs one in memory
  bool int8_activations = false, low_bit_products = true;
  int64_t group_size = -1;   ///< with int8 activations
  int64_t stored_top_k = 0;  ///< tokens a position of a stored teacher (random ones); 0: none
};

class Training {
 public:
  explicit Training(const TrainingOptions& options);

  /// Losses, gradients, clipping, optimizer; does not wait for the device.
  void step();
  /// The teacher's forward on the batch, with the head's product in chunks: what a loss that reads it cannot avoid.
  void teacher_forward();
  /// Median, least and most of single steps, launched from the host, as a run would see them.
  Measurement time_from_host(const std::function<void()>& work) const;

  report::ModelSize size() const;

 private:
  TrainingOptions options_;
  quant::Registry registry_;
  std::unique_ptr<models::Decoder> student_, teacher_;
  std::unique_ptr<losses::Objective> objective_;
  std::unique_ptr<losses::Neighbourhood> neighbourhood_;
  std::unique_ptr<train::TrainingStep> step_;
  std::unique_ptr<optim::AdamW> optimizer_;
  data::Batch batch_;
};

/// Cross-entropy alone.
config::Loss cross_entropy_alone();

}  // namespace satin::bench
