// How a weight is quantized: a plain value shared by training, packing, export and post-training quantization.
#pragma once
#include <cstdint>
#include <string>

namespace satin::quant {

/// Source: Esser et al. 2020 (LSQ), Liu et al. 2025 (ParetoQ: SEQ, ternary, elastic binarisation), Ma et al. 2024
/// (BitNet b1.58).
enum class Method {
  kMinMaxSymmetric,   ///< integer grid, scale from the data at each step
  kMinMaxAsymmetric,  ///< integer grid and zero point from the data at each step
  kLsq,               ///< integer grid, learned scale
  kLsqAsymmetric,     ///< learned scale and zero point
  kSeq,               ///< 2 bits, levels {-3,-1,1,3} / 4 of a learned scale
  kTernary,           ///< levels {-2,0,2} / 3 of a learned scale
  kBinary,            ///< 1 bit, a learned scale times the sign (elastic binarisation)
  kBitNet,            ///< levels {-1,0,1} of mean|w|, read off the data at each step (b1.58)
  kOneBit,            ///< 1 bit: a learned scale times the sign, with OneBit's gradient
};

/// A 16-bit storage format; kExact rounds nothing (gradient checks in fp64).
enum class Storage { kBFloat16, kFloat16, kExact };

/// The stored form is exact: weight = dequant(stored_scale * (code - zero_point)), see codes.h.
struct Scheme {
  Method method = Method::kLsqAsymmetric;
  int bits = 2;                                ///< storage bits of a code (ternary and BitNet: 2)
  int64_t group_size = 64;                     ///< along the input dimension; -1: one scale a row
  Storage scale_dtype = Storage::kBFloat16;    ///< scales are rounded to it before every forward, straight through
  Storage dequant_dtype = Storage::kBFloat16;  ///< of the dequantised weight (config.json's dtype), on every device
  bool mse_init = true;                        ///< clip search at initialisation

  bool has_zero_point() const { return method == Method::kMinMaxAsymmetric || method == Method::kLsqAsymmetric; }
  bool learned_scale() const {
    return method != Method::kMinMaxSymmetric && method != Method::kMinMaxAsymmetric && method != Method::kBitNet;
  }
  bool has_three_levels() const { return method == Method::kTernary || method == Method::kBitNet; }
  /// log2 of the number of levels: 1.585 for three.
  double nominal_bits() const;
  /// Stored bits a weight, with scales (16 bits each) and zero points (`bits` each), for rows of `in_features` weights.
  double effective_bits(int64_t in_features) const;
  int64_t groups(int64_t in_features) const { return group_size < 0 ? 1 : in_features / group_size; }
};

bool operator==(const Scheme&, const Scheme&);
std::string to_string(Method method);
/// Throws UserError naming the known methods and the nearest one.
Method method_from_string(const std::string& name);
/// "lsq_asymmetric 2 bits group 64 bfloat16".
std::string describe(const Scheme& scheme);

}  // namespace satin::quant
