#include "quant/registry.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "core/error.h"

namespace satin::quant {
namespace {

std::string reason_for(nn::Role role) {
  switch (role) {
    case nn::Role::kNorm:
      return "norms are never quantized";
    case nn::Role::kBias:
      return "biases are never quantized";
    default:
      return "not a linear layer";
  }
}

/// Embeddings are looked up and the LM head is multiplied in chunks by the losses: neither has inputs that a wrapper
/// sees.
Scheme scheme_for(const nn::LinearSpec& spec, Scheme scheme) {
  if (spec.role != nn::Role::kEmbedding && spec.name != "lm_head") return scheme;
  if (needs_wrapping(scheme))
    throw UserError(cat("quantization: ", spec.name, " can have neither 8-bit activations nor method onebit, found ",
                        describe(scheme), "; say activations: none and another method in its override"));
  if (scheme.init == Init::kWeightedSearch) scheme.init = Init::kSearch;
  return scheme;
}

}  // namespace

const QuantizedModule* Registry::find(const std::string& name) const {
  const auto found =
      std::find_if(modules_.begin(), modules_.end(), [&](const auto& module) { return module.name == name; });
  return found == modules_.end() ? nullptr : &*found;
}

std::vector<const QuantizedModule*> Registry::in_block(int64_t block) const {
  std::vector<const QuantizedModule*> found;
  for (const QuantizedModule& module : modules_)
    if (nn::block_of(module.name + ".") == block) found.push_back(&module);
  return found;
}

void Registry::add(QuantLinear& linear, int64_t in_features, int64_t out_features, WrappedLinear* wrapper) {
  const Scheme& scheme = linear.scheme();
  modules_.push_back({linear.name(), &linear, wrapper, scheme});
  linears_.push_back({linear.name(),
                      {out_features, in_features},
                      to_string(scheme.method),
                      scheme.nominal_bits(),
                      scheme.group_size,
                      scheme.effective_bits(out_features, in_features),
                      "",
                      scheme.has_columns() ? cat(describe_columns(scheme), " are stored in ", scheme.bits) : ""});
}

void Registry::add_unquantized(const nn::LinearSpec& spec, const std::string& reason) {
  TableRow row;
  row.name = spec.name;
  row.shape = {spec.out_features, spec.in_features};
  row.reason = reason;
  linears_.push_back(std::move(row));
}

void QuantizedModule::enable(bool on) const {
  linear->enable(on);
  if (wrapper) wrapper->enable(on);
}

void Registry::enable(bool on) const {
  for (const QuantizedModule& module : modules_) module.enable(on);
}

void Registry::check_all_rules_match() const {
  if (!policy_) return;
  std::vector<std::string> names;
  for (const TableRow& row : linears_) names.push_back(row.name);
  policy_->check_all_match(names);
}

nn::LinearFactory quant_linear_factory(const Policy& policy, Registry& registry) {
  registry.set_policy(policy);
  return [policy, &registry, dense = nn::dense_linear_factory()](
             const nn::LinearSpec& spec, nn::ParameterStore& store) -> std::unique_ptr<nn::Linear> {
    const Policy::Decision decision = policy.decide(spec.name);
    if (!decision.scheme) {
      registry.add_unquantized(spec, decision.reason);
      return dense(spec, store);
    }
    check_fits(*decision.scheme, spec.name, spec.in_features);
    const Scheme scheme = scheme_for(spec, *decision.scheme);
    auto linear = std::make_unique<QuantLinear>(inner_spec(spec, scheme), scheme, store);
    QuantLinear& inner = *linear;
    std::unique_ptr<WrappedLinear> wrapper;
    if (needs_wrapping(scheme)) wrapper = std::make_unique<WrappedLinear>(std::move(linear), spec, scheme, store);
    registry.add(inner, spec.in_features, spec.out_features, wrapper.get());
    if (wrapper) return wrapper;
    return linear;
  };
}

void initialise_from_weights(Registry& registry) {
  registry.check_all_rules_match();
  for (const QuantizedModule& module : registry.modules()) {
    module.linear->initialise();
    if (module.wrapper) module.wrapper->initialise(*module.linear);
  }
}

std::vector<TableRow> quantization_table(const Registry& registry, const nn::ParameterStore& store) {
  std::map<std::string, const TableRow*> by_weight;
  for (const TableRow& row : registry.linears()) by_weight[row.name + ".weight"] = &row;
  std::vector<TableRow> table;
  for (const nn::Parameter& parameter : store.all()) {
    if (nn::is_quantizer(parameter.role)) continue;
    if (const auto found = by_weight.find(parameter.name); found != by_weight.end()) {
      table.push_back(*found->second);
      continue;
    }
    TableRow row;
    row.name = parameter.name;
    row.shape = parameter.full_shape;
    row.reason = reason_for(parameter.role);
    table.push_back(std::move(row));
  }
  return table;
}

}  // namespace satin::quant
