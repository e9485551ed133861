#include "export/gguf_grids.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "core/error.h"

namespace satin::exporting::gguf {
namespace {

enum class Form { kLevels, kSigned, kCodes, kAffine };

/// The table: what a block of each type holds. Levels from lowest to highest; for codes and affine, zero points up to
/// -lowest and codes up to highest.
struct Holding {
  Type type;
  Form form;
  int lowest, highest;
  int step = 1;  ///< 2: only levels that are odd
};
constexpr Holding kHoldings[] = {
    {Type::kQ1_0, Form::kLevels, -1, 1, 2},   // a sign
    {Type::kTQ1_0, Form::kLevels, -1, 1},     // three levels
    {Type::kTQ2_0, Form::kLevels, -1, 1},     //
    {Type::kQ2_0, Form::kSigned, -1, 2},      // 2 bits around a zero point of 1 or 2
    {Type::kQ2_K, Form::kCodes, -15, 3},      // 2 bits, any zero point; half-integer levels with step 2
    {Type::kQ3_K, Form::kLevels, -4, 3},      // 3 bits symmetric
    {Type::kQ4_0, Form::kLevels, -8, 7},      // 4 bits symmetric; every grid of 2 and 3 bits
    {Type::kQ4_K, Form::kCodes, -63, 15},     // 4 bits, any zero point
    {Type::kQ4_1, Form::kAffine, -255, 15},   // 4 bits, where scale * zero is a float16
    {Type::kQ5_0, Form::kLevels, -16, 15},    // 5 bits symmetric; every grid of 4 bits
    {Type::kQ5_K, Form::kCodes, -63, 31},     // 5 bits, any zero point
    {Type::kQ5_1, Form::kAffine, -255, 31},   // 5 bits, where scale * zero is a float16
    {Type::kQ6_K, Form::kLevels, -32, 31},    // 6 bits symmetric; every grid of 5 bits
    {Type::kQ8_0, Form::kLevels, -128, 127},  // up to 8 bits symmetric; every grid of 7 bits
};

const Holding* holding(const BlockType& type) {
  for (const Holding& row : kHoldings)
    if (row.type == type.type) return &row;
  return nullptr;
}

int num_codes(const quant::Scheme& scheme) { return scheme.has_three_levels() ? 3 : 1 << scheme.bits; }
/// Of schemes without learned zero points (quant/codes.h).
int fixed_zero(const quant::Scheme& scheme) {
  return scheme.has_integer_grid() ? 1 << (scheme.bits - 1) : scheme.method == quant::Method::kSeq ? 3 : 1;
}
int64_t group_of(const WeightFacts& facts) { return facts.columns / facts.scheme.groups(facts.columns); }

WeightFacts facts_with_zeros(const quant::Scheme& scheme, int64_t rows, int64_t columns, int lowest, int highest) {
  const int step = static_cast<int>(quant::code_step(scheme));
  return {scheme, rows, columns, lowest, highest, -highest, step * (num_codes(scheme) - 1) - lowest, false};
}

std::string shown(double bits) {
  std::ostringstream out;
  out << bits;
  return out.str();
}

}  // namespace

WeightFacts facts_of_all(const quant::Scheme& scheme, int64_t rows, int64_t columns) {
  const int zero = fixed_zero(scheme);
  return scheme.has_zero_point() ? facts_with_zeros(scheme, rows, columns, 0, num_codes(scheme) - 1)
                                 : facts_with_zeros(scheme, rows, columns, zero, zero);
}

WeightFacts facts_of_some(const quant::Scheme& scheme, int64_t rows, int64_t columns) {
  const int zero = fixed_zero(scheme);
  WeightFacts facts = facts_with_zeros(scheme, rows, columns, zero, zero);
  facts.affine = true;
  return facts;
}

WeightFacts facts_of(const quant::QuantizedWeight& weight) {
  const int64_t rows = weight.codes.size(0), columns = weight.codes.size(1), groups = weight.scale.size(1);
  const at::Tensor zero = weight.zero_point, codes = weight.codes.view({rows, groups, -1});
  const int64_t step = quant::code_step(weight.scheme);
  WeightFacts facts = facts_with_zeros(weight.scheme, rows, columns, zero.min().item<int>(), zero.max().item<int>());
  facts.lowest_level = (codes.amin(-1).to(at::kInt) * step - zero).min().item<int>();
  facts.highest_level = (codes.amax(-1).to(at::kInt) * step - zero).max().item<int>();
  const at::Tensor scale = weight.scale.to(at::kDouble), product = scale * zero;
  facts.affine = product.to(at::kHalf).to(at::kDouble).eq(product).all().item<bool>() && scale.ne(0).all().item<bool>();
  return facts;
}

std::string refusal(const BlockType& type, const WeightFacts& facts) {
  const Holding* holds = holding(type);
  if (!holds) return "it holds no codes";
  if (facts.columns < 1 || (facts.scheme.group_size > 0 && facts.columns % facts.scheme.group_size))
    return cat("rows of ", facts.columns, " weights are not whole groups of ", facts.scheme.group_size);
  if (facts.columns % type.block)
    return cat("rows must be whole blocks of ", type.block, " weights, they are of ", facts.columns);
  if (const int64_t group = group_of(facts); group % type.block)
    return cat("a block of ", type.block, " weights has one scale, groups are of ", group);
  const auto step = static_cast<int>(quant::code_step(facts.scheme));
  const int highest_code = num_codes(facts.scheme) - 1;
  switch (holds->form) {
    case Form::kLevels:
      if (holds->step > step) return "it holds two levels, plus and minus the scale";
      break;
    case Form::kSigned: {
      const bool either = facts.lowest_zero >= 1 && facts.highest_zero <= 2 && step == 1 && highest_code <= 3;
      if (either || (facts.lowest_level >= -1 && facts.highest_level <= 2 && facts.highest_zero < 2)) return "";
      return cat("it holds levels -1 ... 2 and -2 ... 1, this grid has ", facts.lowest_level, " ... ",
                 facts.highest_level);
    }
    case Form::kCodes:
      if (highest_code <= holds->highest && facts.highest_zero <= -holds->lowest) return "";
      return cat("it holds codes up to ", holds->highest, ", this grid has them up to ", highest_code);
    case Form::kAffine:
      if (step != 1 || highest_code > holds->highest)
        return cat("it holds codes up to ", holds->highest, " in whole steps");
      return facts.affine ? "" : "it holds scale * zero point as a float16, which not every one of these is";
  }
  if (facts.lowest_level >= holds->lowest && facts.highest_level <= holds->highest) return "";
  return cat("it holds levels ", holds->lowest, " ... ", holds->highest, ", this grid has ", facts.lowest_level,
             " ... ", facts.highest_level);
}

bool needs_zero_points(const BlockType& type, const quant::Scheme& scheme) {
  const Holding* holds = holding(type);
  return scheme.has_zero_point() && holds && (holds->form == Form::kLevels || holds->form == Form::kSigned);
}

double stored_bits(const BlockType& type, const WeightFacts& facts) {
  const double beside = needs_zero_points(type, facts.scheme) ? facts.scheme.bits : 0;
  return type.bits() + beside / static_cast<double>(group_of(facts));
}

const BlockType* smallest_type(const WeightFacts& facts) {
  const BlockType* smallest = nullptr;
  for (const BlockType& type : block_types())
    if (refusal(type, facts).empty() && (!smallest || stored_bits(type, facts) < stored_bits(*smallest, facts)))
      smallest = &type;
  return smallest;
}

std::string alternatives(const WeightFacts& facts, const BlockType* wanted) {
  std::string list;
  for (const BlockType& type : block_types())
    if (refusal(type, facts).empty())
      list += cat(list.empty() ? "" : ", ", type.name, " (", shown(type.bits()), " bits)");
  std::string text = list.empty() ? "no packed type is exact" : "exact types: " + list;
  WeightFacts regrouped = facts;
  regrouped.scheme.group_size = 256;
  const BlockType* better = facts.columns % 256 ? nullptr : wanted ? wanted : smallest_type(regrouped);
  if (better && refusal(*better, regrouped).empty() && !refusal(*better, facts).empty())
    text += cat("; or train with group_size 256 for ", better->name, " (", shown(better->bits()), " bits)");
  return text;
}

std::string scales_refusal(const quant::QuantizedWeight& weight) {
  const at::Tensor scale = weight.scale.to(at::kDouble), differs = scale.ne(weight.scale.to(at::kHalf).to(at::kDouble));
  const int64_t count = differs.sum().item<int64_t>();
  if (!count) return "";
  return cat(count, " of ", scale.numel(), " scales are not float16 values, such as ",
             scale.masked_select(differs)[0].item<double>(), "; train with scale_dtype float16");
}

void write_blocks(const BlockType& type, const quant::QuantizedWeight& weight, int64_t begin, int64_t end,
                  std::span<std::byte> rows) {
  const Holding* holds = holding(type);
  SATIN_CHECK(holds, type.name, " holds no codes");
  const int64_t num_columns = weight.codes.size(1), num_groups = weight.scale.size(1);
  const int64_t num_blocks = num_columns / type.block, per_group = num_blocks / num_groups;
  SATIN_CHECK_EQ(rows.size(), static_cast<size_t>((end - begin) * num_blocks * type.bytes));
  const at::Tensor codes = weight.codes.slice(0, begin, end).contiguous(),
                   scale = weight.scale.slice(0, begin, end).to(at::kFloat).contiguous(),
                   zero = weight.zero_point.slice(0, begin, end).to(at::kInt).contiguous();
  const auto step = static_cast<int>(quant::code_step(weight.scheme));
  const uint8_t* code = codes.const_data_ptr<uint8_t>();
  std::byte* block = rows.data();
  uint8_t u[kMaxBlock];
  for (int64_t row = 0; row < end - begin; ++row) {
    for (int64_t b = 0; b < num_blocks; ++b, code += type.block, block += type.bytes) {
      const int64_t group = row * num_groups + b / per_group;
      const float d = scale.const_data_ptr<float>()[group];
      const int z = zero.const_data_ptr<int>()[group];
      BlockScales scales;
      scales.d = d;
      std::fill_n(scales.sc, kMaxParts, int16_t{1});
      int factor = step, offset = type.offset - z;  // u = factor * code + offset
      if (holds->form == Form::kSigned && z == 2) {
        scales.d = -d;
        factor = -1;
        offset = type.offset + 2;
      } else if (holds->form == Form::kCodes) {
        scales.m = d;
        std::fill_n(scales.sc, kMaxParts, static_cast<int16_t>(step));
        std::fill_n(scales.mn, kMaxParts, static_cast<int16_t>(z));
        factor = 1;
        offset = 0;
      } else if (holds->form == Form::kAffine) {
        scales.m = d * static_cast<float>(z);
        offset = 0;
      }
      for (int i = 0; i < type.block; ++i) u[i] = static_cast<uint8_t>(factor * code[i] + offset);
      type.put_scales(scales, block);
      type.pack(u, block);
    }
  }
}

quant::QuantizedWeight read_blocks(const BlockType& type, const quant::Scheme& scheme, int64_t num_rows,
                                   int64_t num_columns, std::span<const std::byte> rows, const at::Tensor& zero_points,
                                   const std::string& where) {
  const Holding* holds = holding(type);
  if (!holds) throw UserError(cat(where, ": type ", type.name, " holds no codes"));
  const WeightFacts facts = facts_of_some(scheme, num_rows, num_columns);
  if (scheme.group_size > 0 && num_columns % scheme.group_size)
    throw UserError(cat(where, ": rows of ", num_columns, " weights are not whole groups of ", scheme.group_size));
  if (const std::string reason = refusal(type, facts); !reason.empty() && !needs_zero_points(type, scheme))
    throw UserError(cat(where, ": type ", type.name, " for ", quant::describe(scheme), ": ", reason));
  const int64_t num_groups = scheme.groups(num_columns), num_blocks = num_columns / type.block;
  if (num_blocks % num_groups || num_columns % type.block)
    throw UserError(cat(where, ": blocks of ", type.block, " are not parts of groups of ", num_columns / num_groups));
  const int64_t per_group = num_blocks / num_groups;
  SATIN_CHECK_EQ(rows.size(), static_cast<size_t>(num_rows * num_blocks * type.bytes));
  const bool given = needs_zero_points(type, scheme);
  SATIN_CHECK(!given || zero_points.defined(), where, ": no zero points");

  quant::QuantizedWeight weight{
      scheme, at::empty({num_rows, num_columns}, at::kByte), at::empty({num_rows, num_groups}, at::kFloat),
      given ? zero_points.contiguous() : at::full({num_rows, num_groups}, fixed_zero(scheme), at::kInt)};
  const auto step = static_cast<int>(quant::code_step(scheme));
  const int end = num_codes(scheme);
  uint8_t* code = weight.codes.mutable_data_ptr<uint8_t>();
  float* scale = weight.scale.mutable_data_ptr<float>();
  int* zero = weight.zero_point.mutable_data_ptr<int>();
  const auto refuse = [&](int64_t row, const std::string& what) {
    throw UserError(cat(where, ", row ", row, ": ", what, "; the file is damaged, or was changed by another program"));
  };
  uint8_t u[kMaxBlock];
  const std::byte* block = rows.data();
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t b = 0; b < num_blocks; ++b, code += type.block, block += type.bytes) {
      const int64_t group = row * num_groups + b / per_group;
      BlockScales scales;
      type.get_scales(block, scales);
      type.unpack(block, u);
      const int sc = holds->form == Form::kCodes ? step : 1;
      bool even = true;
      for (int p = 0; p < type.num_parts; ++p) even &= scales.sc[p] == sc && scales.mn[p] == scales.mn[0];
      if (!even || (holds->form == Form::kCodes && scales.m != scales.d))
        refuse(row, "a block with more than one scale");
      int z = zero[group];
      if (holds->form == Form::kCodes) z = scales.mn[0];
      if (holds->form == Form::kAffine) {
        const float quotient = scales.m / scales.d;
        if (!(quotient >= 0 && quotient < 256) || quotient != static_cast<float>(static_cast<int>(quotient)))
          refuse(row, "a minimum that is no zero point");
        z = static_cast<int>(quotient);
      }
      const bool negated = holds->form == Form::kSigned && z == 2;
      const float d = negated ? -scales.d : scales.d;
      const bool first = b % per_group == 0;
      const bool expected_zero = scheme.has_zero_point() ? z >= 0 && z < end : z == fixed_zero(scheme);
      if (!expected_zero || (!first && (scale[group] != d || zero[group] != z)))
        refuse(row, "scales or zero points that differ within a group");
      scale[group] = d;
      zero[group] = z;
      // step * code = level + zero
      const bool by_code = holds->form == Form::kCodes || holds->form == Form::kAffine;
      for (int i = 0; i < type.block; ++i) {
        const int level = negated ? type.offset - u[i] : u[i] - type.offset;
        const int stepped = by_code ? u[i] * step : level + z;
        if (stepped < 0 || stepped % step || stepped / step >= end) refuse(row, "a level that the grid does not have");
        code[i] = static_cast<uint8_t>(stepped / step);
      }
    }
  }
  if (!weight.scale.isfinite().all().item<bool>()) throw UserError(cat(where, ": scales are not finite"));
  const at::Tensor stored = weight.scale.to(quant::storage_dtype(scheme.scale_dtype, at::kFloat));
  if (!stored.to(at::kFloat).equal(weight.scale))
    throw UserError(cat(where, ": scales are not values of ", quant::describe(scheme)));
  weight.scale = stored;
  return weight;
}

}  // namespace satin::exporting::gguf
