#include "export/integer_grid.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"

namespace satin::exporting {

std::string module_of(const std::string& name) {
  return name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
}

int storage_bits(const quant::Scheme& scheme) { return std::max(2, scheme.bits); }
int64_t stored_group(const quant::Scheme& scheme) { return scheme.group_size > 0 ? scheme.group_size : -1; }

bool is_packed_module(const std::string& name) {
  return module_of(name) != "lm_head" && module_of(name) != "model.embed_tokens";
}

std::string integer_grid_refusal(const quant::Scheme& scheme, at::ScalarType dtype) {
  if (scheme.method == quant::Method::kOneBit)
    return "its layers have a second value vector and a norm, for which the format has no place";
  if (scheme.method == quant::Method::kSeq) return "its levels are half-integers, zero points are integers";
  if (scheme.activations != quant::Activations::kNone) return "the format cannot ask for 8-bit activations";
  if (dtype != at::kHalf && dtype != at::kBFloat16)
    return cat("weights dequantize to 16 bits, config.json's dtype is ", c10::toString(dtype));
  return "";
}

std::string scales_refusal(const ShippedModel& model) {
  for (const auto& tensor : model.tensors) {
    if (!tensor.quantized || !is_packed_module(tensor.name)) continue;
    const at::Tensor& stored = tensor.quantized->scale;
    const at::Tensor scale = stored.to(at::kDouble), differs = scale.ne(stored.to(at::kHalf).to(at::kDouble));
    if (const int64_t count = differs.sum().item<int64_t>())
      return cat(tensor.name, ": ", count, " of ", scale.numel(), " scales are not float16 values, such as ",
                 scale.masked_select(differs)[0].item<double>(), "; train with scale_dtype float16");
  }
  return "";
}

IntegerCodes integer_codes(const quant::QuantizedWeight& weight, int bits) {
  if (weight.scheme.has_zero_point()) return {weight.codes, weight.zero_point};
  const int middle = 1 << (bits - 1);
  return {(quant::levels(weight) + middle).to(at::kByte), at::full_like(weight.zero_point, middle)};
}

quant::QuantizedWeight integer_weight(const IntegerCodes& codes, const at::Tensor& scale, int bits, int64_t group_size,
                                      bool symmetric, at::ScalarType dtype) {
  quant::QuantizedWeight weight;
  weight.codes = codes.codes;
  weight.zero_point = codes.zero;
  weight.scale = scale;
  weight.scheme.method = symmetric ? quant::Method::kLsq : quant::Method::kLsqAsymmetric;
  weight.scheme.bits = bits;
  weight.scheme.group_size = group_size;
  weight.scheme.scale_dtype = quant::Storage::kFloat16;
  weight.scheme.dequant_dtype = dtype == at::kHalf ? quant::Storage::kFloat16 : quant::Storage::kBFloat16;
  // Scales that were bfloat16 are so again, so that formats that store them in the model's dtype take them.
  if (const at::Tensor narrow = scale.to(at::kBFloat16);
      dtype == at::kBFloat16 && narrow.to(at::kFloat).equal(scale.to(at::kFloat))) {
    weight.scale = narrow;
    weight.scheme.scale_dtype = quant::Storage::kBFloat16;
  }
  return weight;
}

void read_packed_modules(const io::TensorDirectory& tensors, const std::set<std::string>& parts, ShippedModel& model,
                         const std::function<quant::QuantizedWeight(const std::string& module)>& read) {
  if (model.dtype != at::kBFloat16 && model.dtype != at::kHalf)
    throw UserError(
        cat("config.json: dtype ", c10::toString(model.dtype), ", packed weights need bfloat16 or float16"));
  static const std::string kPacked = ".qweight";
  std::set<std::string> modules;
  for (const auto& name : tensors.names())
    if (name.ends_with(kPacked)) modules.insert(name.substr(0, name.size() - kPacked.size()));
  for (const auto& module : modules) model.tensors.push_back({module + ".weight", {}, read(module)});
  for (const auto& name : tensors.names()) {
    const size_t dot = name.rfind('.');
    const std::string module = name.substr(0, dot), last = dot == std::string::npos ? name : name.substr(dot + 1);
    const bool part = last == "qweight" || parts.contains(last);
    if (part && modules.contains(module)) continue;
    if (part) throw UserError(cat(name, ": there is no ", module, ".qweight beside it"));
    model.tensors.push_back({name, tensors.tensor(name), {}});
  }
}

}  // namespace satin::exporting
