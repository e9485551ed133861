#include <ATen/ATen.h>

#include <set>

#include "core/error.h"
#include "export/awq.h"
#include "export/integer_grid.h"

namespace satin::exporting {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw UserError(cat("quantization_config of awq: ", what)); }

/// group_size.
int64_t parse_group(const nlohmann::json& config) {
  if (const int64_t bits = config.value("bits", config.value("w_bit", int64_t{4})); bits != 4)
    refuse(cat("bits: expected 4, found ", bits));
  std::string version = config.value("version", "gemm");
  std::transform(version.begin(), version.end(), version.begin(), [](unsigned char c) { return std::tolower(c); });
  if (version != "gemm") refuse(cat("version: expected gemm, found '", version, "'"));
  const int64_t group = config.value("group_size", config.value("q_group_size", int64_t{128}));
  if (group == 0 || group < -1) refuse(cat("group_size: expected -1 or a positive number, found ", group));
  return group;
}

quant::QuantizedWeight read_module(const io::TensorDirectory& tensors, const std::string& module, int64_t group_size,
                                   at::ScalarType dtype) {
  const auto required = [&](const std::string& suffix, at::ScalarType type, int64_t rows, int64_t columns) {
    if (!tensors.contains(module + suffix)) throw UserError(cat("missing tensor ", module, suffix));
    const at::Tensor found = tensors.tensor(module + suffix);
    const bool fits = found.scalar_type() == type && found.dim() == 2 && found.numel() > 0 &&
                      (rows < 0 || found.size(0) == rows) && (columns < 0 || found.size(1) == columns);
    if (!fits)
      throw UserError(cat(module, suffix, ": expected ", c10::toString(type), " [", rows < 0 ? "in" : cat(rows), ", ",
                          columns < 0 ? "out / 8" : cat(columns), "], found ", c10::toString(found.scalar_type()), " ",
                          found.sizes()));
    return found;
  };
  const at::Tensor packed = required(".qweight", at::kInt, -1, -1);
  const int64_t num_columns = packed.size(0), group = group_size > 0 ? group_size : num_columns;
  if (num_columns % group)
    throw UserError(cat(module, ".qweight: ", num_columns, " inputs do not fill whole groups of ", group));
  const int64_t num_groups = num_columns / group;
  const at::Tensor zeros = required(".qzeros", at::kInt, num_groups, packed.size(1));
  const at::Tensor scales = required(".scales", at::kHalf, num_groups, 8 * packed.size(1));
  const IntegerCodes codes{unpack_awq(packed).t().contiguous(), unpack_awq(zeros).to(at::kInt).t().contiguous()};
  const bool symmetric = codes.zero.eq(8).all().item<bool>();
  return integer_weight(codes, scales.t().contiguous(), 4, group_size, symmetric, dtype);
}

}  // namespace

void read_awq(const io::TensorDirectory& tensors, const nlohmann::json& config, ShippedModel& model) {
  int64_t group_size = 0;
  try {
    group_size = parse_group(config);
  } catch (const nlohmann::json::exception& error) {
    refuse(error.what());
  }
  read_packed_modules(tensors, {"qzeros", "scales"}, model,
                      [&](const std::string& module) { return read_module(tensors, module, group_size, model.dtype); });
}

}  // namespace satin::exporting
