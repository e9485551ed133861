// Building a quantized model: the factory that chooses each linear layer, and the record of what it chose.
//
//   Registry registry;
//   Decoder model(config, quant_linear_factory(Policy(quantization), registry), options);
//   ... load weights ...
//   initialise_from_weights(registry);
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "nn/linear_factory.h"
#include "quant/policy.h"
#include "quant/wrapped_linear.h"

namespace satin::quant {

/// A line of the quantization table.
struct TableRow {
  std::string name;             ///< a linear layer's module name; otherwise a parameter's name
  std::vector<int64_t> shape;   ///< of the weight
  std::string method = "none";  ///< "none" when left in full precision
  double bits = 16;             ///< of a code (ternary: 1.585)
  int64_t group_size = 0;       ///< -1: one scale a row; 0: one a tensor, or left in full precision
  double effective_bits = 16;   ///< stored bits a weight, scales and zero points included
  std::string reason;           ///< why it is not quantized; empty when it is
  std::string columns = {};     ///< "columns of 2 and 4 bits are stored in 4"; empty where all have the same
};

struct QuantizedModule {
  std::string name;
  QuantLinear* linear;     ///< owned by the model
  WrappedLinear* wrapper;  ///< around it, or nullptr
  Scheme scheme;           ///< at the end of training; linear->scheme() is the present one

  /// Off: it computes in full precision with its master weight.
  void enable(bool on) const;
};

/// What a factory made, in the model's order. Outlives neither the model nor the factory's use of it.
class Registry {
 public:
  const std::vector<QuantizedModule>& modules() const { return modules_; }
  /// Every linear layer that was asked for, quantized or not.
  const std::vector<TableRow>& linears() const { return linears_; }
  /// nullptr when there is no quantized layer of that name.
  const QuantizedModule* find(const std::string& name) const;

  /// Those inside the decoder's block of this number.
  std::vector<const QuantizedModule*> in_block(int64_t block) const;

  void add(QuantLinear& linear, int64_t in_features, int64_t out_features, WrappedLinear* wrapper = nullptr);
  void add_unquantized(const nn::LinearSpec& spec, const std::string& reason);
  /// Off: every layer computes in full precision with its master weight.
  void enable(bool on) const;
  /// Whether training may multiply int8 inputs with codes (low_bit_matmul.h).
  void allow_low_bit_products(bool on) { low_bit_products_ = on; }
  bool low_bit_products() const { return low_bit_products_; }
  void set_policy(const Policy& policy) { policy_ = policy; }
  /// Throws UserError for an override that matched no layer. Call once the model is built.
  void check_all_rules_match() const;

 private:
  std::optional<Policy> policy_;
  bool low_bit_products_ = true;
  std::vector<QuantizedModule> modules_;
  std::vector<TableRow> linears_;
};

/// Linear layers as the policy says, dense where it says none. The registry must live while models are built with it.
/// Throws UserError when a group size does not divide a layer's inputs, and for 8-bit activations or OneBit where only
/// the weight is used (embedding, LM head).
nn::LinearFactory quant_linear_factory(const Policy& policy, Registry& registry);

/// Checks the rules and fills every parameter of the quantizers from the loaded weights (and from the statistics of
/// layers that have observed calibration text). Throws UserError.
void initialise_from_weights(Registry& registry);

/// Every parameter of the model but scales and zero points, in the store's order: linear layers as registered, all else
/// with the reason why it stays in full precision.
std::vector<TableRow> quantization_table(const Registry& registry, const nn::ParameterStore& store);

}  // namespace satin::quant
