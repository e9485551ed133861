// How a weight is quantized: a plain value shared by training, packing, export and post-training quantization.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace satin::quant {

/// Source: Esser et al. 2020 (LSQ), Liu et al. 2025 (ParetoQ: SEQ, ternary, elastic binarisation), Ma et al. 2024
/// (BitNet b1.58), Shao et al. 2024 (OmniQuant: LWC), Xu et al. 2024 (OneBit).
enum class Method {
  kMinMaxSymmetric,   ///< integer grid, scale from the data at each step
  kMinMaxAsymmetric,  ///< integer grid and zero point from the data at each step
  kLsq,               ///< integer grid, learned scale
  kLsqAsymmetric,     ///< learned scale and zero point
  kSeq,               ///< 2 bits, levels {-3,-1,1,3} / 4 of a learned scale
  kTernary,           ///< levels {-2,0,2} / 3 of a learned scale
  kBinary,            ///< 1 bit, a learned scale times the sign (elastic binarisation)
  kBitNet,            ///< levels {-1,0,1} of mean|w|, read off the data at each step (b1.58)
  kLwc,               ///< min-max asymmetric of a learned part of each group's range (learned weight clipping)
  kOneBit,            ///< 1 bit: the sign between two value vectors, then a layer norm (see wrapped_linear.h)
};

/// What a layer does to its input before the product (kernels/act_quant.h).
enum class Activations {
  kNone,
  kInt8,        ///< 8 bits, one scale a token from its largest value
  kInt8Static,  ///< 8 bits, one learned scale a layer, which starts from calibration text
  kFloat8,      ///< e4m3, one scale a token
};

/// Where learned scales and zero points start.
enum class Init {
  kData,            ///< the group's extremes
  kSearch,          ///< the clip ratio of least squared error
  kWeightedSearch,  ///< the same, errors weighted by the mean squares of each input on calibration text
};

/// A 16-bit storage format; kExact rounds nothing (gradient checks in fp64).
enum class Storage { kBFloat16, kFloat16, kExact };

/// The stored form is exact: weight = dequant(stored_scale * (code - zero_point)), see codes.h.
struct Scheme {
  Method method = Method::kLsqAsymmetric;
  int bits = 2;                                ///< storage bits of a code (ternary and BitNet: 2)
  int64_t group_size = 64;                     ///< along the input dimension; -1: one scale a row, 0: one a tensor
  Storage scale_dtype = Storage::kBFloat16;    ///< scales are rounded to it before every forward, straight through
  Storage dequant_dtype = Storage::kBFloat16;  ///< of the dequantised weight (config.json's dtype), on every device
  Init init = Init::kSearch;
  Activations activations = Activations::kNone;
  /// Bits of each group of a row's weights, at most `bits`, whose grid they use a part of (column_limits.h); empty: all
  /// groups have `bits`. Learned integer grids alone.
  std::vector<int> column_bits = {};

  bool has_zero_point() const {
    return method == Method::kMinMaxAsymmetric || method == Method::kLsqAsymmetric || method == Method::kLwc;
  }
  /// Scales (and zero points) are parameters; otherwise they are made from the weight at each step.
  bool learned_scale() const {
    return method != Method::kMinMaxSymmetric && method != Method::kMinMaxAsymmetric && method != Method::kBitNet &&
           method != Method::kLwc;
  }
  /// Made from the weight alone: nothing of the quantizer is learned.
  bool reads_data() const { return !learned_scale() && method != Method::kLwc; }
  /// Levels are whole steps between two ends, for any number of bits.
  bool has_integer_grid() const {
    return method == Method::kMinMaxSymmetric || method == Method::kLsq || has_zero_point();
  }
  bool per_tensor() const { return group_size == 0; }
  /// Whether rows can be quantized and started apart from each other: processes may then own some of them.
  bool splits_by_rows() const { return !per_tensor() && method != Method::kOneBit; }
  /// Whether Init::kWeightedSearch means something: other starts are no search, or one over the whole tensor.
  bool searches_weighted() const {
    return init == Init::kWeightedSearch && learned_scale() && !per_tensor() && method != Method::kBinary &&
           method != Method::kOneBit;
  }
  bool needs_calibration() const { return searches_weighted() || activations == Activations::kInt8Static; }
  bool has_three_levels() const { return method == Method::kTernary || method == Method::kBitNet; }
  /// Whether groups have bits of their own; whether any has fewer than the grid.
  bool has_columns() const { return !column_bits.empty(); }
  bool has_narrow_columns() const;
  /// What codes and scales look like to those who know no column_bits: every code is one of `bits` bits.
  Scheme stored() const;
  /// Of the groups from `first` on: the scheme of these columns alone.
  Scheme of_groups(int64_t first, int64_t count) const;
  /// log2 of the number of levels: 1.585 for three; the mean over columns.
  double nominal_bits() const;
  /// Bits a weight of a matrix [out, in], with scales (16 bits each) and zero points (as many as their weights' codes).
  double effective_bits(int64_t out_features, int64_t in_features) const;
  /// Scales a row of the matrix that kernels see (one a tensor: the same in every row).
  int64_t groups(int64_t in_features) const { return group_size <= 0 ? 1 : in_features / group_size; }
};

bool operator==(const Scheme&, const Scheme&);
std::string to_string(Method method);
/// Throws UserError naming the known methods and the nearest one.
Method method_from_string(const std::string& name);
std::string to_string(Activations activations);
std::string to_string(Init init);
/// nullopt for an unknown name.
std::optional<Activations> activations_from_string(const std::string& name);
std::optional<Init> init_from_string(const std::string& name);
/// "lsq_asymmetric 2 bits group 64 bfloat16", ", int8 activations"; "lsq 2, 3 and 4 bits, stored in 4, group 128 ...".
std::string describe(const Scheme& scheme);
/// "columns of 2, 3 and 4 bits"; empty without column_bits.
std::string describe_columns(const Scheme& scheme);

}  // namespace satin::quant
