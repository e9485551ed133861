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

nlohmann::json exclusions(const std::vector<std::string>& dense_modules) {
  static const std::pair<const char*, std::vector<std::string>> kJoined[] = {
      {"qkv_proj", {"q_proj", "k_proj", "v_proj"}}, {"gate_up_proj", {"gate_proj", "up_proj"}}};
  std::set<std::string> names(dense_modules.begin(), dense_modules.end());
  for (const auto& module : dense_modules) {
    const std::string parent = module.substr(0, module.rfind('.') + 1);
    for (const auto& [joined, parts] : kJoined)
      if (std::ranges::all_of(parts, [&](const auto& part) { return names.contains(parent + part); }))
        names.insert(parent + joined);
  }
  nlohmann::json rules = nlohmann::json::object();
  for (const auto& name : names) {
    std::string pattern;
    for (const char c : name) pattern += c == '.' ? "\\." : std::string(1, c);
    rules["-:^" + pattern + "$"] = nlohmann::json::object();
  }
  return rules;
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

std::string scale_dtype_refusal(const quant::Scheme& scheme, at::ScalarType dtype) {
  const std::string wanted = dtype == at::kHalf ? "float16" : "bfloat16";
  const quant::Storage stored = scheme.scale_dtype;
  if (stored == quant::Storage::kExact) return cat("scales are stored as ", wanted, ", this model's are float32");
  const std::string found = stored == quant::Storage::kFloat16 ? "float16" : "bfloat16";
  if (found == wanted) return "";
  return cat("scales are stored in the model's dtype (", wanted, "), the scheme's are ", found,
             "; train with scale_dtype ", wanted);
}

std::string scales_refusal(const quant::QuantizedWeight& weight) {
  const at::Tensor scale = weight.scale.to(at::kDouble), differs = scale.ne(weight.scale.to(at::kHalf).to(at::kDouble));
  const int64_t count = differs.sum().item<int64_t>();
  if (count == 0) return "";
  return cat(count, " of ", scale.numel(), " scales are not float16 values, such as ",
             scale.masked_select(differs)[0].item<double>(), "; train with scale_dtype float16");
}

std::string scales_checked_at_the_end(const quant::Scheme& scheme) {
  if (scheme.scale_dtype == quant::Storage::kFloat16) return "";
  return "every scale must be a float16 value (those of bfloat16 from 6.1e-5 to 65504 are); train with scale_dtype "
         "float16 to be sure";
}

Client gptqmodel_client() {
  return {"GPTQModel (`pip install gptqmodel`)", "python",
          "from gptqmodel import GPTQModel\n\nmodel = GPTQModel.load(\"DIRECTORY\")\n"
          "print(model.tokenizer.decode(model.generate(\"Once upon a time\")[0]))"};
}

IntegerCodes integer_codes(const quant::QuantizedWeight& weight, int bits) {
  if (weight.scheme.has_zero_point()) return {weight.codes, weight.zero_point};
  const int middle = 1 << (bits - 1);
  return {quant::codes_around(weight, middle), at::full_like(weight.zero_point, middle)};
}

quant::Scheme integer_scheme(const at::Tensor& scale, int bits, int64_t group_size, bool symmetric,
                             at::ScalarType dtype) {
  quant::Scheme scheme;
  scheme.method = symmetric ? quant::Method::kLsq : quant::Method::kLsqAsymmetric;
  scheme.bits = bits;
  scheme.group_size = group_size;
  scheme.dequant_dtype = dtype == at::kHalf ? quant::Storage::kFloat16 : quant::Storage::kBFloat16;
  const bool narrow = dtype == at::kBFloat16 && scale.to(at::kBFloat16).to(at::kFloat).equal(scale.to(at::kFloat));
  scheme.scale_dtype = narrow ? quant::Storage::kBFloat16 : quant::Storage::kFloat16;
  return scheme;
}

void read_packed_modules(const Files& files, const std::set<std::string>& parts, ShippedModel& model,
                         const std::function<ShippedTensor(const std::string& module)>& packed) {
  if (model.dtype != at::kBFloat16 && model.dtype != at::kHalf)
    throw UserError(
        cat("config.json: dtype ", c10::toString(model.dtype), ", packed weights need bfloat16 or float16"));
  static const std::string kPacked = ".qweight";
  std::set<std::string> modules;
  for (const auto& name : files->names())
    if (name.ends_with(kPacked)) modules.insert(name.substr(0, name.size() - kPacked.size()));
  for (const auto& module : modules) {
    ShippedTensor tensor = packed(module);
    size_t stored_bytes = 0;
    for (const std::string& part : parts)
      if (files->contains(cat(module, ".", part))) {
        const io::TensorInfo& info = files->info(cat(module, ".", part));
        stored_bytes += info.end - info.begin;
      }
    tensor.effective_bits = 8. * static_cast<double>(stored_bytes) / static_cast<double>(tensor.num_elements());
    model.add(std::move(tensor));
  }
  for (const auto& name : files->names()) {
    const size_t dot = name.rfind('.');
    const std::string module = name.substr(0, dot), last = dot == std::string::npos ? name : name.substr(dot + 1);
    const bool part = parts.contains(last);
    if (part && modules.contains(module)) continue;
    if (part) throw UserError(cat(name, ": there is no ", module, ".qweight beside it"));
    model.add(stored_tensor(files, name));
  }
}

}  // namespace satin::exporting
