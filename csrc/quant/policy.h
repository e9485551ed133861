// Which module gets which scheme: the configuration's `default` and ordered `overrides`, the last match wins.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "config/schema.h"
#include "quant/scheme.h"

namespace satin::quant {

/// A rule's scheme; nothing for method `none`. The dequantised weight has the dtype of the scales.
/// Throws UserError, beginning with `where` ("quantization.default"), for values that no quantizer has.
std::optional<Scheme> scheme_from_rule(const config::QuantizationRule& rule, const std::string& where);

/// Throws UserError, beginning with `where`, for column_bits that the rest of the scheme does not go with.
void check_column_bits(const Scheme& scheme, const std::string& where);

/// column_bits of a rule or a list, one for each config::kBitColumns inputs, as a scheme has them: one a group.
std::vector<int> bits_of_groups(const std::vector<int64_t>& column_bits, int64_t group_size);

/// Throws UserError naming the module and the group sizes that divide its in_features, or how many column_bits it
/// needs.
void check_fits(const Scheme& scheme, const std::string& module, int64_t in_features);

class Policy {
 public:
  /// Throws UserError naming the rule.
  explicit Policy(const config::Quantization& quantization);

  struct Decision {
    std::optional<Scheme> scheme;
    std::string reason;  ///< why there is none, for people; empty with a scheme
    int rule;            ///< index into overrides, -1: default
  };
  /// `module` is a linear layer's name. Globs are those of fnmatch(3): * (dots included), ?, [abc].
  /// `default` covers every linear layer but lm_head, which only an override that matches it quantizes, and the
  /// embedding (model.embed_tokens), which only an override that says "embed" does: a bare star is meant for layers.
  Decision decide(const std::string& module) const;

  /// Throws UserError for an override that matches none of the modules, with the nearest name.
  void check_all_match(const std::vector<std::string>& modules) const;

 private:
  struct Rule {
    std::string glob;
    std::optional<Scheme> scheme;
  };
  std::optional<Scheme> default_;
  std::vector<Rule> overrides_;
};

}  // namespace satin::quant
