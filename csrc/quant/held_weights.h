// Every quantized weight of a model, made once and shared by all uses until the parameters change: in training by the
// micro-batches of a step, in evaluation by all batches. On CUDA up to 256 weights share a launch.
//
//   HeldWeights held(registry, compute_dtype, /*trainable=*/true);
//   for each micro-batch: held.begin_micro_batch(last), forward, backward, held.collect();
//   held.fold();
//
// The gradients of weights, scales and zero points are those of one fake_quant a use: the mask does not depend on the
// gradient, and the others are linear in it, so the sum over micro-batches (and processes) comes first and one backward
// after.
//
// Where the registry allows it, layers with int8 inputs get their weight's codes too and multiply with these.
//
// Where processes own a layer by rows, each quantizes its own and the whole is gathered, in the compute dtype or as
// codes and scales (Sharing::gathers_codes), of which every process makes the same weights; the gradient's sum over
// processes comes back for its own rows. Passes through the model tell where they stand, so that gathers and sums run
// beside the blocks' arithmetic (and a block's whole weights may go when it has been used).
#pragma once
#include <map>
#include <vector>

#include "dist/sharing.h"
#include "quant/packed_rows.h"
#include "quant/registry.h"

namespace satin::quant {

class HeldWeights {
 public:
  /// Layers whose gradients before and after the mask are in memory together in fold().
  static constexpr int64_t kLayersAFold = 16;

  /// Quantizes every layer of the registry into `dtype`, which the layers then multiply with until this object ends.
  /// The parameters must not change meanwhile. trainable: gradients are left in the held weights for collect().
  /// `sharing` outlives this; every rank makes this object at the same time.
  HeldWeights(const Registry& registry, at::ScalarType dtype, bool trainable,
              const dist::Sharing& sharing = dist::not_shared());
  ~HeldWeights();
  HeldWeights(const HeldWeights&) = delete;
  HeldWeights& operator=(const HeldWeights&) = delete;

  /// The next backward's gradients are summed over processes if these sums are due (see Sharing).
  void begin_micro_batch(bool last);
  /// Where a pass stands (models/block_boundary.h); needed when sharing is split.
  void before_forward(int64_t block);
  /// For passes that do not tell.
  void bring_all();
  void after_forward(int64_t block);
  void before_backward(int64_t block);
  void after_backward(int64_t block);

  /// After a micro-batch's backward: adds its gradients up, in fp32 from the second on. Their sums over processes may
  /// still be under way: the next micro-batch waits for them, and fold() for each as it needs it.
  void collect();
  /// Adds the sum's gradients to those of the master weights, scales and zero points. Layers without any are left out
  /// (their weight was not used, or in another dtype, which has its own path). From the last layers to the first, whose
  /// sums over processes are the last to come.
  /// damping: what oscillation damping (Nagel et al. 2022, eq. 8) adds, 2 damping (w - Q(w)), to the gradient of each
  /// weight that has one.
  void fold(double damping = 0);

 private:
  struct Layer {
    QuantLinear* linear;
    QuantizerState state = {};
    at::Tensor own = {};                            ///< quantized: all of it, or this process's rows
    PackedRows packed = {};                         ///< of these rows, where they travel so
    std::optional<ops::PackedWeight> product = {};  ///< what int8 products multiply with (see low_bit_matmul.h)
    at::Tensor held = {};                           ///< all of it, a leaf
    at::Tensor gradient = {};  ///< the sum so far, of `own`; of `held` before it is summed over processes
  };
  /// Layers that one kernel can serve: all but the group size is equal.
  struct Batch {
    bool quantized;  ///< else masters as they are (training has not begun to quantize)
    ops::FakeQuantGrid grid;
    at::ScalarType dtype;
    std::vector<Layer> layers;
  };
  /// Layers whose whole weights come and go together: a block of the model, or all else (-1).
  struct Block {
    std::vector<Layer*> layers;
    dist::RowGather weights, packed;  ///< of layers that travel as weights, and as PackedRows
    bool gathering = false, here = false, reduced = false;
    std::vector<std::pair<std::vector<Layer*>, dist::GradientReduce>> reduces;
  };

  // held_weights.cpp: quantizing, and what a gradient of a quantized weight means
  void add_layers(const Registry& registry, at::ScalarType dtype);
  void quantize(Batch& batch);
  void pack_products(Batch& batch) const;
  void fold_slice(Batch& batch, size_t begin, size_t end, double damping);
  /// Fills the states of layers that learn none.
  static void read_data_scales(Batch& batch);
  static ops::FakeQuantBatch inputs(const Batch& batch, const std::vector<const Layer*>& layers);

  // held_blocks.cpp: who has which weight when, and sums over processes
  void make_blocks();
  void start_gather(Block& block);
  void bring(Block& block);
  void release(Block& block);
  void start_gather_of(int64_t block);
  void start_reduce(Block& block);
  void finish_reduces(Block& block);

  const dist::Sharing& sharing_;
  bool trainable_, low_bit_, reducing_ = false;
  std::vector<Batch> batches_;
  std::map<int64_t, Block> blocks_;
};

}  // namespace satin::quant
