// What formats of integer grids share: module names, and for GPTQ and AWQ codes of one width around integer zero
// points, fp16 scales, embeddings and head dense.
#pragma once
#include <functional>
#include <set>

#include "export/format.h"
#include "io/safetensors.h"

namespace satin::exporting {

/// "model.layers.0.mlp.up_proj" of the module's name or its weight's.
std::string module_of(const std::string& name);
/// Bits of the scheme's levels around an integer zero point: 2 for three levels and for a sign.
int storage_bits(const quant::Scheme& scheme);
/// Weights that share a scale, -1 for a row.
int64_t stored_group(const quant::Scheme& scheme);

/// Clients look rows up in dense embeddings, and the head is not among what they unpack.
bool is_packed_module(const std::string& name);
/// quantization_config's "dynamic": what keeps clients from expecting these modules packed, as they expect of every
/// linear. Engines that join q, k and v (or gate and up) into one module look that one's name up: it is among them
/// where all its parts are. Source: GPTQModel's documentation ("-:" and a pattern, matched from the name's start).
nlohmann::json exclusions(const std::vector<std::string>& dense_modules);
/// Empty, or why such a format has no place for the scheme, whatever its bits.
std::string integer_grid_refusal(const quant::Scheme& scheme, at::ScalarType dtype);
/// Empty, or why a format that stores scales in the model's dtype has no place for the scheme's.
std::string scale_dtype_refusal(const quant::Scheme& scheme, at::ScalarType dtype);
/// Empty, or that the weight has scales which fp16 does not hold.
std::string scales_refusal(const quant::QuantizedWeight& weight);
/// Empty for scales that are float16 as they are trained, else what will be asked of them.
std::string scales_checked_at_the_end(const quant::Scheme& scheme);

/// GPTQModel, which loads both.
Client gptqmodel_client();

/// W = scale (code - zero), in codes of `bits`.
struct IntegerCodes {
  at::Tensor codes;  ///< [N, K] uint8, below 2^bits
  at::Tensor zero;   ///< [N, G] int32 in 0 ... 2^bits - 1
};
/// bits: at least storage_bits of the weight's scheme. Symmetric weights get the middle as their zero point.
IntegerCodes integer_codes(const quant::QuantizedWeight& weight, int bits);

/// Of codes read back, which have scales fp16 [N, G]. `symmetric`: the zero points are all the middle, and the scheme
/// says so. Scales that were bfloat16 are so again, so that formats that store them in the model's dtype take them.
quant::Scheme integer_scheme(const at::Tensor& scale, int bits, int64_t group_size, bool symmetric,
                             at::ScalarType dtype);

/// Adds every tensor of the directory to the model: packed(module) for what has a ".qweight", which is among
/// its parts, the rest as it is; the effective bits of a weight are those of all its parts. Throws UserError for parts
/// without it and a model.dtype that is not of 16 bits.
void read_packed_modules(const Files& files, const std::set<std::string>& parts, ShippedModel& model,
                         const std::function<ShippedTensor(const std::string& module)>& packed);

}  // namespace satin::exporting
