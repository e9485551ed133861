#include "config/validate.h"

#include <algorithm>
#include <cmath>

#include "config/document.h"
#include "config/scalar.h"
#include "core/error.h"
#include "core/nearest.h"

namespace satin::config {
namespace {

namespace fs = std::filesystem;

/// Where columns differ in bits, these are groups' or several groups'.
void check_columns_fit(const QuantizationRule& rule, const std::string& at, const std::string& key,
                       const Report& report) {
  if (rule.method != "lsq" && rule.method != "lsq_asymmetric")
    report({key, at + ".method"}, cat(key, ": columns of other bits need method lsq or lsq_asymmetric, ", at,
                                      ".method is ", rule.method, "; change it, or leave ", key, " out"));
  else if (rule.group_size <= 0 || kBitColumns % rule.group_size != 0)
    report({key, at + ".group_size"},
           cat(key, ": columns of other bits come in ", kBitColumns, ", which ", at,
               ".group_size must divide (8, 16, ... ", kBitColumns, "), found ", rule.group_size));
}

void check_column_bits(const QuantizationRule& rule, const std::string& at, const Report& report) {
  if (rule.column_bits.empty()) return;
  const std::string key = at + ".column_bits";
  check_columns_fit(rule, at, key, report);
  const int64_t most = *std::ranges::max_element(rule.column_bits);
  if (static_cast<double>(most) > rule.bits)
    report({at + ".bits", key}, cat(at, ".bits: codes are stored in it, so it is at least the ", most,
                                    " of column_bits; found ", format_number(rule.bits), "; leave bits out"));
}

void check_rule(const QuantizationRule& rule, const std::string& at, const Report& report) {
  if (rule.method == "none") return;
  const std::string bits = at + ".bits", method = at + ".method", group = at + ".group_size";
  if (const auto implied = implied_bits(rule.method)) {
    if (rule.bits != *implied) {
      report({bits, method}, cat(bits, ": method ", rule.method, " has ", format_number(*implied), " bits, found ",
                                 format_number(rule.bits), "; leave bits out or choose another method"));
    }
  } else if (rule.bits != std::floor(rule.bits) || rule.bits < 2) {
    report({bits, method},
           cat(bits, ": method ", rule.method, " has 2, 3, ... 8 bits, found ", format_number(rule.bits),
               rule.bits < 2 ? "; 1 bit is method: binary or onebit, 1.58 bits are method: ternary or bitnet" : ""));
  }
  if (rule.group_size != -1 && (rule.group_size < 0 || rule.group_size % 8 != 0)) {
    report({group},
           cat(group, ": expected a multiple of 8, -1 (one scale per output channel) or 0 (one per tensor), found ",
               rule.group_size));
  }
  check_column_bits(rule, at, report);
  if (rule.method == "onebit" && rule.group_size != -1)
    report({group, method},
           cat(group, ": method onebit has one value per output channel (-1), found ", rule.group_size));
  if (rule.method == "lwc" && rule.group_size == 0)
    report({group, method}, cat(group, ": method lwc clips groups or rows, found 0 (one scale per tensor)"));
}

/// Bits descend, time ascends, and there is something to harden.
void check_hardening(const Quantization& quantization, const Report& report) {
  double bits = 9, until = 0;
  for (size_t i = 0; i < quantization.hardening.size(); ++i) {
    const HardeningStage& stage = quantization.hardening[i];
    const std::string at = cat("quantization.hardening.", i);
    if (stage.bits != std::floor(stage.bits) || stage.bits >= bits)
      report({at + ".bits"}, cat(at, ".bits: expected a whole number below ", format_number(bits), ", found ",
                                 format_number(stage.bits)));
    if (stage.until <= until)
      report({at + ".until"}, cat(at, ".until: expected more than ", format_number(until),
                                  ", where the stage before ends, found ", format_number(stage.until)));
    bits = stage.bits;
    until = stage.until;
  }
  const auto hardens = [](const QuantizationRule& rule) { return rule.method != "none" && !implied_bits(rule.method); };
  if (!quantization.hardening.empty() && !hardens(quantization.default_rule) &&
      std::none_of(quantization.overrides.begin(), quantization.overrides.end(), hardens))
    report({"quantization.hardening", "quantization.default.method"},
           cat("quantization.hardening: method ", quantization.default_rule.method,
               " has one number of bits; minmax, lsq and lwc can harden"));
  for (size_t i = 0; i < quantization.overrides.size(); ++i)
    if (!quantization.hardening.empty() && !quantization.overrides[i].column_bits.empty())
      return report({"quantization.hardening", cat("quantization.overrides.", i, ".column_bits")},
                    cat("quantization.hardening: layers whose columns differ in bits (quantization.overrides.", i,
                        ".column_bits) have theirs from the start; leave hardening out"));
}

void check_quantization(const Quantization& quantization, const Report& report) {
  const auto& overrides = quantization.overrides;
  check_rule(quantization.default_rule, "quantization.default", report);
  for (size_t i = 0; i < overrides.size(); ++i) check_rule(overrides[i], cat("quantization.overrides.", i), report);
  check_hardening(quantization, report);
  const auto is_none = [](const QuantizationRule& rule) { return rule.method == "none"; };
  if (quantization.kv_cache == "none" && is_none(quantization.default_rule) &&
      std::all_of(overrides.begin(), overrides.end(), is_none)) {
    report({"quantization.default.method"},
           "quantization: every rule has method none, so nothing is quantized; for dense training remove the section "
           "(quantization=none)");
  }
}

bool is_two_sided(const std::string& method) { return method == "lsq_asymmetric" || method == "lwc"; }

/// Results are held by learned scales: what is read off the weights at each step would move with them.
void check_ptq(const Config& config, const Report& report) {
  const Ptq& ptq = config.ptq;
  if (!config.model.quantized.empty())
    report({"model.quantized"},
           "model.quantized: expected nothing for satin quantize, which starts from model.path; "
           "remove it (satin train starts from it)");
  const bool learned_blocks = ptq.method == "lwc" || ptq.method == "block_ap";
  if (ptq.gradient_ratio > 0 && !learned_blocks)
    report({"ptq.gradient_ratio", "ptq.method"}, cat("ptq.gradient_ratio: method ", ptq.method,
                                                     " learns nothing; expected method lwc or block_ap, or ratio 0"));
  if ((ptq.method != "rtn" || ptq.gradient_cosines) && config.data.train.empty())
    report({ptq.method != "rtn" ? "ptq.method" : "ptq.gradient_cosines", "data.train"},
           cat("ptq: ", ptq.method != "rtn" ? cat("method ", ptq.method, " reads") : "gradient_cosines: true reads",
               " calibration text; give data.train a path"));
  if (ptq.method == "rtn" || !config.quantization) return;
  const auto check = [&](const QuantizationRule& rule, const std::string& at) {
    if (rule.method == "none") return;
    std::string expected;
    if (ptq.method == "lwc" && !is_two_sided(rule.method)) expected = "lsq_asymmetric or lwc";
    if (ptq.method == "lwc" && !rule.column_bits.empty())
      report({at + ".column_bits", "ptq.method"}, cat(at, ".column_bits: ptq.method lwc clips layers of one number of ",
                                                      "bits; expected rtn, gptq, awq or block_ap, or no column_bits"));
    if (ptq.method == "lwc" && rule.group_size == 0)
      report({at + ".group_size", "ptq.method"},
             cat(at, ".group_size: ptq.method lwc clips groups or rows, found 0 (one scale per tensor)"));
    if (ptq.method != "lwc" && (rule.method.starts_with("minmax") || rule.method == "bitnet" || rule.method == "lwc" ||
                                rule.method == "onebit"))
      expected = "lsq_asymmetric, lsq, seq, ternary or binary, whose scales hold the result";
    if (ptq.masters == "levels" && rule.method == "lwc")
      report({"ptq.masters", at + ".method"}, cat("ptq.masters: levels would change the ranges that ", at,
                                                  ".method lwc reads off the weights; expected latent"));
    if (!expected.empty())
      report({at + ".method", "ptq.method"},
             cat(at, ".method: ptq.method ", ptq.method, " needs ", expected, "; found ", rule.method));
  };
  check(config.quantization->default_rule, "quantization.default");
  for (size_t i = 0; i < config.quantization->overrides.size(); ++i)
    check(config.quantization->overrides[i], cat("quantization.overrides.", i));
}

void check_allocate(const Config& config, const Report& report) {
  const Allocate& allocate = config.allocate;
  if (config.data.train.empty()) report({"data.train"}, "data.train: satin allocate reads general text; give a path");
  if (allocate.sensitivity != "losses" && !allocate.reasoning.empty())
    report({"allocate.sensitivity"},
           cat("allocate.sensitivity: ", allocate.sensitivity,
               " looks at data.train alone; expected losses with allocate.reasoning, or no reasoning"));
  double least = 9;
  for (size_t i = 0; i < allocate.candidates.size(); ++i) {
    const double bits = allocate.candidates[i];
    const std::string key = cat("allocate.candidates.", i);
    if (bits != std::floor(bits)) report({key}, cat(key, ": expected whole bits, found ", format_number(bits)));
    if (std::count(allocate.candidates.begin(), allocate.candidates.end(), bits) > 1)
      report({key}, cat(key, ": ", format_number(bits), " is given twice"));
    least = std::min(least, bits);
  }
  if (allocate.candidates.empty())
    report({"allocate.candidates"}, "allocate.candidates: expected at least one, found none");
  else if (allocate.average_bits < least)
    report({"allocate.average_bits", "allocate.candidates"},
           cat("allocate.average_bits: ", format_number(allocate.average_bits), " is less than the fewest candidate, ",
               format_number(least)));
  if (!config.quantization) return;
  const auto check = [&](const QuantizationRule& rule, const std::string& at) {
    if (rule.method != "none" && implied_bits(rule.method))
      report({at + ".method"},
             cat(at, ".method: ", rule.method, " has one number of bits; expected minmax, lsq or lwc"));
    if (!rule.column_bits.empty())
      report({at + ".column_bits"}, cat(at, ".column_bits: satin allocate chooses bits of layers and, with ",
                                        "allocate.columns, of columns; leave column_bits out"));
    if (allocate.columns && rule.method != "none" && !implied_bits(rule.method))
      check_columns_fit(rule, at, "allocate.columns", report);
  };
  check(config.quantization->default_rule, "quantization.default");
  for (size_t i = 0; i < config.quantization->overrides.size(); ++i)
    check(config.quantization->overrides[i], cat("quantization.overrides.", i));
}

/// A start that is quantized is not quantized again later.
void check_quantized_start(const Config& config, const Report& report) {
  if (config.model.quantized.empty()) return;
  const auto refuse = [&](const std::string& key, const std::string& why) {
    report({key, "model.quantized"}, cat(key, ": ", why, "; remove it or model.quantized"));
  };
  if (!config.quantization) {
    report({"model.quantized"},
           "model.quantized: training without a quantization section cannot start from a quantized model; remove it or "
           "add the section");
    return;
  }
  if (config.quantization->fake_quant_after_n_steps > 0)
    refuse("quantization.fake_quant_after_n_steps", "scales would be made anew when quantization begins");
  if (!config.quantization->hardening.empty())
    refuse("quantization.hardening", "model.quantized has its final bits, stages begin with more");
  if (config.model.init == "random") refuse("model.init", "weights come from model.quantized");
}

void check_sources(const std::vector<DataSource>& sources, const std::string& list, const Report& report) {
  for (size_t i = 0; i < sources.size(); ++i) {
    const DataSource& source = sources[i];
    const std::string at = cat(list, ".", i);
    if (source.template_.empty()) continue;
    const std::string key = at + ".template";
    const size_t open = source.template_.find('{');
    if (open == std::string::npos || source.template_.find('}', open) == std::string::npos) {
      report({key}, key + ": expected a text with at least one {field}, found " + quote(source.template_));
    }
    if (source.field != DataSource{}.field) {
      report({key, at + ".field"}, cat(at, ": template and field were both given; keep one"));
    }
    if (source.format == "messages") {
      report({key, at + ".format"}, cat(at, ": format messages takes its text from the chat turns; remove template"));
    }
  }
  const auto weighted = [](const DataSource& source) { return source.weight > 0; };
  const auto num_weighted = std::count_if(sources.begin(), sources.end(), weighted);
  if (num_weighted > 0 && num_weighted < static_cast<std::ptrdiff_t>(sources.size())) {
    const auto first = std::find_if_not(sources.begin(), sources.end(), weighted) - sources.begin();
    const std::string key = cat(list, ".", first, ".weight");
    report({key}, cat(key, ": ", num_weighted, " of ", sources.size(),
                      " sources have a weight; give every source one above 0, or none"));
  }
}

void check_length(const Train& train, const Report& report) {
  if (train.max_steps == 0 && train.max_tokens == 0) {
    report({"train.max_steps", "train.max_tokens"},
           "train: how long? set max_steps or max_tokens (both are 0 or missing)");
  }
}

void check_gradient_penalty(const Config& config, const Report& report) {
  const GradientPenalty& lgr = config.loss.lgr;
  if (lgr.weight > 0 && lgr.gradient_ratio > 0)
    report({"loss.lgr.gradient_ratio", "loss.lgr.weight"},
           cat("loss.lgr: weight (", format_number(lgr.weight), ") and gradient_ratio (",
               format_number(lgr.gradient_ratio), ") both say how strong it is; set one of them to 0"));
  if ((lgr.weight == 0 && lgr.gradient_ratio == 0) || !config.quantization) return;
  const auto refuse = [&](const QuantizationRule& rule, const std::string& at) {
    if (rule.method != "none" && rule.activations == "int8_static")
      report({at + ".activations", "loss.lgr"},
             cat(at,
                 ".activations: int8_static has a learned scale, through which loss.lgr cannot take second "
                 "derivatives; use int8 or float8, or set loss.lgr.weight and gradient_ratio to 0"));
  };
  refuse(config.quantization->default_rule, "quantization.default");
  for (size_t i = 0; i < config.quantization->overrides.size(); ++i)
    refuse(config.quantization->overrides[i], cat("quantization.overrides.", i));
}

/// Perturbed copies are written once, by the teacher, and read instead of the text.
void check_copies(const Config& config, const Report& report) {
  const Neighbourhood& neighbourhood = config.loss.neighbourhood;
  if (config.teacher.copies == 0) return;
  const auto refuse = [&](const std::string& key, const std::string& what) {
    report({"teacher.copies", key},
           cat("teacher.copies: ", config.teacher.copies, " perturbed copies ", what, ", or set teacher.copies to 0"));
  };
  if (config.teacher.cache.empty()) refuse("teacher.cache", "are stored in teacher.cache, which is empty; set it");
  if (neighbourhood.rate == 0)
    refuse("loss.neighbourhood.rate", "need a loss.neighbourhood.rate above 0, found 0; set it");
  if (neighbourhood.start > 0 || neighbourhood.ramp > 0)
    refuse(neighbourhood.start > 0 ? "loss.neighbourhood.start" : "loss.neighbourhood.ramp",
           cat("are drawn once, at the whole rate; found loss.neighbourhood.start ", format_number(neighbourhood.start),
               " and ramp ", format_number(neighbourhood.ramp), "; set both to 0"));
  if (neighbourhood.source == "student" && neighbourhood.random_share < 1)
    refuse("loss.neighbourhood.source",
           "are drawn before there is a student; set loss.neighbourhood.source to teacher or random");
  if (neighbourhood.placement == "branch")
    refuse("loss.neighbourhood.placement",
           "are texts of their own, not branch tokens; set loss.neighbourhood.placement to text");
}

void check_losses(const Config& config, const Report& report) {
  const Loss& loss = config.loss;
  const bool distils = loss.kd.weight > 0 || loss.smoothness.weight > 0 || loss.hidden.weight > 0;
  if (loss.ce.weight == 0 && !distils) {
    report({"loss.ce.weight", "loss.kd.weight", "loss.smoothness.weight", "loss.hidden.weight"},
           "loss: every weight is 0, so there is nothing to train; set loss.ce.weight, loss.kd.weight, "
           "loss.smoothness.weight or loss.hidden.weight above 0");
  }
  if (loss.ce.weight == 0 && loss.kd.weight == 0 && loss.hidden.weight == 0 && loss.smoothness.weight > 0 &&
      loss.smoothness.start > 0) {
    report({"loss.smoothness.start"},
           cat("loss.smoothness.start: nothing has a weight before ", format_number(loss.smoothness.start),
               " of training; set it to 0, or loss.kd.weight or loss.ce.weight above 0"));
  }
  check_copies(config, report);
  const bool offline = !config.teacher.cache.empty() && (loss.neighbourhood.rate == 0 || config.teacher.copies > 0);
  if (loss.hidden.weight > 0 && offline)
    report({"loss.hidden.weight", "teacher.cache"},
           "loss.hidden.weight: the losses read teacher.cache, which holds logits and no hidden states; set "
           "loss.hidden.weight to 0, or remove teacher.cache");
  check_gradient_penalty(config, report);
  if (!distils || !config.teacher.path.empty()) return;
  std::vector<std::string> keys;
  if (loss.kd.weight > 0) keys.push_back("loss.kd.weight");
  if (loss.smoothness.weight > 0) keys.push_back("loss.smoothness.weight");
  if (loss.hidden.weight > 0) keys.push_back("loss.hidden.weight");
  const std::string& what = keys.front();
  std::string fix = "set loss.ce.weight to 1 and ";
  for (const std::string& key : keys) fix += (key == what ? "" : " and ") + key;
  fix += " to 0, or give teacher.path";
  if (config.model.init == "random") {
    report({"model.init", what}, cat("model.init: random weights have no teacher to imitate; ", fix));
  } else if (!config.quantization) {
    report({what},
           cat(what, ": without a quantization section the student is its own teacher (dense training); ", fix));
  }
}

/// Says what is there instead when `path` is missing.
void check_exists(const std::string& key, const std::string& path, bool directory, const Report& report) {
  std::error_code ignored;
  const char* what = directory ? "directory" : "file";
  if (path.empty() || (directory ? fs::is_directory(path, ignored) : fs::is_regular_file(path, ignored))) return;
  if (fs::exists(path, ignored))
    return report({key}, cat(key, ": expected a ", what, ", found something else at ", path));
  fs::path parent = fs::path(path).parent_path();
  std::vector<std::string> siblings;
  for (const auto& entry : fs::directory_iterator(parent, ignored))
    siblings.push_back(entry.path().filename().string());
  std::string hint = did_you_mean(fs::path(path).filename().string(), siblings);
  if (hint.empty() && !fs::is_directory(parent, ignored)) {
    while (parent.has_relative_path() && !fs::is_directory(parent, ignored)) parent = parent.parent_path();
    hint = cat("; it exists up to ", parent.string());
  }
  report({key},
         cat(key, ": there is no ", what, " ", path, hint.empty() && directory ? "; nothing is downloaded" : hint));
}

void check_files(const Config& config, const Report& report) {
  check_exists("model.path", config.model.path, true, report);
  check_exists("model.quantized", config.model.quantized, true, report);
  check_exists("teacher.path", config.teacher.path, true, report);
  for (size_t i = 0; i < config.allocate.reasoning.size(); ++i)
    check_exists(cat("allocate.reasoning.", i, ".path"), config.allocate.reasoning[i].path, false, report);
  for (size_t i = 0; i < config.data.train.size(); ++i) {
    check_exists(cat("data.train.", i, ".path"), config.data.train[i].path, false, report);
  }
  for (size_t i = 0; i < config.data.valid.size(); ++i) {
    check_exists(cat("data.valid.", i, ".path"), config.data.valid[i].path, false, report);
  }
}

}  // namespace

std::optional<double> implied_bits(const std::string& method) {
  if (method == "seq") return 2;
  if (method == "ternary" || method == "bitnet") return 1.58;
  if (method == "binary" || method == "onebit") return 1;
  return std::nullopt;
}

void validate(const Config& config, Job job, const Report& report) {
  if (config.quantization) check_quantization(*config.quantization, report);
  check_sources(config.data.train, "data.train", report);
  check_sources(config.data.valid, "data.valid", report);
  check_sources(config.allocate.reasoning, "allocate.reasoning", report);
  if (config.train.max_steps > 0 && config.train.max_tokens > 0) {
    report({"train.max_tokens", "train.max_steps"},
           cat("train: max_steps (", config.train.max_steps, ") and max_tokens (", config.train.max_tokens,
               ") both give the length; set one of them to 0"));
  }
  if (job == Job::any) return;
  if (job == Job::train) {
    if (config.data.train.empty())
      report({"data.train"}, "data.train: there is no text to train on; give a path or a list");
    check_length(config.train, report);
    check_losses(config, report);
    check_quantized_start(config, report);
  }
  if (job == Job::quantize) check_ptq(config, report);
  if (job == Job::allocate) check_allocate(config, report);
  if ((job == Job::quantize || job == Job::allocate) && !config.quantization) {
    report({"quantization"}, "quantization: the section is missing; quantization: {default: {bits: 2}} is the least");
  }
  check_files(config, report);
}

void validate_for_training(const Config& config) {
  std::string messages;
  const auto report = [&](const std::vector<std::string>&, const std::string& message) {
    messages += "\n  " + message;
  };
  if (config.model.path.empty()) report({}, "model.path is missing");
  validate(config, Job::train, report);
  if (!messages.empty()) throw UserError("the configuration is not ready for training:" + messages);
}

}  // namespace satin::config
