#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "export/bitnet.h"

namespace satin::exporting {
namespace {

[[noreturn]] void refuse_bitnet(const std::string& what) {
  throw UserError(cat("quantization_config of bitnet: ", what));
}

/// Whether clients divide by weight_scale.
bool parse_divides(const nlohmann::json& config) {
  const std::string linear = config.value("linear_class", "bitlinear");
  if (linear != "bitlinear" && linear != "autobitlinear")
    refuse_bitnet(cat("linear_class: expected bitlinear or autobitlinear, found '", linear, "'"));
  if (const std::string mode = config.value("quantization_mode", "offline"); mode != "offline")
    refuse_bitnet(cat("quantization_mode: expected offline, found '", mode,
                      "'; weights that are quantized at run time are not read"));
  if (config.value("use_rms_norm", false)) refuse_bitnet("use_rms_norm: norms inside of linears are not supported");
  return linear == "bitlinear";
}

/// The scale that a level is multiplied with: fp32 [], exact but for the one division.
at::Tensor read_scale(const io::TensorDirectory& files, const std::string& name, bool divides) {
  if (!files.contains(name)) throw UserError(cat("missing tensor ", name));
  const io::TensorInfo& info = files.info(name);
  const bool fits = (info.dtype == at::kFloat || info.dtype == at::kHalf || info.dtype == at::kBFloat16) &&
                    (info.shape == std::vector<int64_t>{1} || info.shape.empty());
  if (!fits)
    throw UserError(cat(name, ": expected a floating-point number [1], found ", c10::toString(info.dtype), " ",
                        at::IntArrayRef(info.shape)));
  const at::Tensor stored = files.tensor(name).to(at::kFloat).reshape({});
  const at::Tensor scale = divides ? stored.reciprocal() : stored;
  if (!std::isfinite(scale.item<float>()))
    throw UserError(cat(name, ": ", stored.item<float>(), " makes no finite weights"));
  return scale;
}

ShippedTensor packed_tensor(const Files& files, const std::string& module, bool divides, at::ScalarType dtype) {
  const std::string name = module + ".weight";
  const std::vector<int64_t> packed = files->info(name).shape;
  if (packed.size() != 2 || packed[0] == 0 || packed[1] == 0)
    throw UserError(cat(name, ": expected uint8 [out / 4, in], found ", at::IntArrayRef(packed)));
  const at::Tensor scale = read_scale(*files, module + ".weight_scale", divides);
  quant::Scheme scheme;
  scheme.method = quant::Method::kTernary;
  scheme.bits = 2;
  scheme.group_size = 0;
  scheme.activations = quant::Activations::kInt8;
  const bool narrow = dtype != at::kFloat && scale.to(dtype).to(at::kFloat).equal(scale);
  scheme.scale_dtype = scheme.dequant_dtype = !narrow              ? quant::Storage::kExact
                                              : dtype == at::kHalf ? quant::Storage::kFloat16
                                                                   : quant::Storage::kBFloat16;
  const int64_t num_rows = 4 * packed[0];
  const auto load = [files, name, scheme, num_rows, scale = narrow ? scale.to(dtype) : scale] {
    quant::QuantizedWeight weight;
    weight.scheme = scheme;
    weight.codes = unpack_bitnet(files->tensor(name));
    if (weight.codes.eq(3).any().item<bool>()) throw UserError(cat(name, ": expected levels -1, 0 and 1, found 2"));
    weight.scale = at::full({num_rows, 1}, scale.item(), scale.options());
    weight.zero_point = at::ones({num_rows, 1}, at::kInt);
    return weight;
  };
  return {name, {num_rows, packed[1]}, scheme, load};
}

}  // namespace

void read_bitnet(const Files& files, const nlohmann::json& config, ShippedModel& model) {
  bool divides = false;
  try {
    divides = parse_divides(config);
  } catch (const nlohmann::json::exception& error) {
    refuse_bitnet(error.what());
  }
  for (const auto& name : files->names()) {
    const size_t dot = name.rfind('.');
    const std::string module = name.substr(0, dot), last = dot == std::string::npos ? name : name.substr(dot + 1);
    const auto is_packed = [&](const std::string& weight) {
      return files->contains(weight) && files->info(weight).dtype == at::kByte;
    };
    if (last == "weight_scale") {
      if (!is_packed(module + ".weight"))
        throw UserError(cat(name, ": there is no packed weight ", module, " beside it"));
    } else if (last == "weight" && is_packed(name)) {
      model.add(packed_tensor(files, module, divides, model.dtype));
    } else {
      model.add(stored_tensor(files, name));
    }
  }
}

}  // namespace satin::exporting
