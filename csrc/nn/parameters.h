// Named tensors of a model: what is trained, loaded, saved and exported.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace satin::nn {

/// Decides the optimizer's group (learning rate, decay) and what a checkpoint does with it.
enum class Role { kWeight, kEmbedding, kNorm, kBias, kScale, kZeroPoint, kClip };
/// Whether it belongs to a quantizer: not a weight of the model.
inline bool is_quantizer(Role role) { return role == Role::kScale || role == Role::kZeroPoint || role == Role::kClip; }

/// A process's part of what is split by rows; {0, 1}: all of it.
struct RowShard {
  int64_t rank = 0, size = 1;
};
struct RowRange {
  int64_t first, count;
};
/// Rank's rows of `rows`: ceil(rows / size) each, the last rank fewer. Where the last would have none, nothing is
/// split: every rank has them all.
RowRange rows_of(const RowShard& shard, int64_t rows);

/// N of "model.layers.N.", else -1.
int64_t block_of(const std::string& name);

struct Parameter {
  std::string name;  ///< Hugging Face name ("model.layers.0.self_attn.q_proj.weight"); scales: "<module>.weight_scale"
  at::Tensor value;  ///< leaf tensor; modules share this handle, so it is filled with copy_ and never replaced
  Role role;
  std::vector<int64_t> full_shape = {};  ///< of the whole parameter, of which value may be some rows
  int64_t first_row = 0;                 ///< of value in it
  at::Tensor whole =
      {};  ///< full_shape, a leaf: what a dense layer computes with where value is a part; else undefined

  bool is_split() const { return value.dim() > 0 && value.size(0) != full_shape[0]; }
};

/// How a model's tensors are made.
struct BuildOptions {
  at::Device device = at::kCPU;
  at::ScalarType master_dtype = at::kFloat;  ///< of the stored parameters
  at::ScalarType compute_dtype =
      at::kFloat;  ///< of matrix products; norms, residual stream and losses are fp32 (fp64 when compute is fp64)
  bool trainable = false;  ///< requires_grad of the parameters
  RowShard shard = {};     ///< of the large parameters
};

/// Of norms, the residual stream, logits and losses: fp32, or fp64 when compute is fp64.
at::ScalarType statistics_dtype(at::ScalarType compute_dtype);

/// Ordered store. Names are unique. Pointers from find() hold until the next add().
class ParameterStore {
 public:
  explicit ParameterStore(BuildOptions options) : options_(std::make_shared<BuildOptions>(options)) {}
  const BuildOptions& options() const { return *options_; }
  /// The same for modules to keep: what ComputeScope changes reaches them.
  std::shared_ptr<const BuildOptions> shared_options() const { return options_; }

  /// Makes an uninitialised parameter of the master dtype (or `dtype`) and returns the shared handle.
  at::Tensor add(const std::string& name, at::IntArrayRef shape, Role role, std::optional<at::ScalarType> dtype = {});
  /// Of `shape` only the rows of options().shard; returns the handle of these.
  at::Tensor add_rows(const std::string& name, at::IntArrayRef shape, Role role,
                      std::optional<at::ScalarType> dtype = {});
  /// As add_rows; returns the handle of Parameter::whole (of the value where it is not split).
  at::Tensor add_gathered(const std::string& name, at::IntArrayRef shape, Role role);
  /// nullptr when absent.
  const Parameter* find(const std::string& name) const;
  /// Throws InternalError when absent.
  at::Tensor at(const std::string& name) const;
  const std::vector<Parameter>& all() const { return parameters_; }

 private:
  friend class ComputeScope;
  at::Tensor make(at::IntArrayRef shape, at::ScalarType dtype) const;
  Parameter& insert(Parameter parameter);
  std::shared_ptr<BuildOptions> options_;
  std::vector<Parameter> parameters_;
  std::unordered_map<std::string, size_t> index_;
};

/// While it lives, a model computes in another dtype on the same parameters: in fp32 what bf16 does not resolve. The
/// statistics dtype stays: InternalError otherwise.
class ComputeScope {
 public:
  ComputeScope(ParameterStore& store, at::ScalarType dtype);
  ~ComputeScope();
  ComputeScope(const ComputeScope&) = delete;
  ComputeScope& operator=(const ComputeScope&) = delete;

 private:
  std::shared_ptr<BuildOptions> options_;
  at::ScalarType before_;
};

}  // namespace satin::nn
