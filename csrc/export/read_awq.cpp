#include <ATen/ATen.h>

#include <set>

#include "core/error.h"
#include "export/awq.h"
#include "export/integer_grid.h"

namespace satin::exporting {
namespace {

[[noreturn]] void refuse_awq(const std::string& what) { throw UserError(cat("quantization_config of awq: ", what)); }

/// group_size.
int64_t parse_group(const nlohmann::json& config) {
  if (const int64_t bits = config.value("bits", config.value("w_bit", int64_t{4})); bits != 4)
    refuse_awq(cat("bits: expected 4, found ", bits));
  std::string version = config.value("version", "gemm");
  std::transform(version.begin(), version.end(), version.begin(), [](unsigned char c) { return std::tolower(c); });
  if (version != "gemm") refuse_awq(cat("version: expected gemm, found '", version, "'"));
  const int64_t group = config.value("group_size", config.value("q_group_size", int64_t{128}));
  if (group == 0 || group < -1) refuse_awq(cat("group_size: expected -1 or a positive number, found ", group));
  return group;
}

/// Zero points [N, G], as scales of a row and a group.
at::Tensor zero_points(const io::TensorDirectory& files, const std::string& module) {
  return unpack_awq(files.tensor(module + ".qzeros")).to(at::kInt).t().contiguous();
}
at::Tensor scales(const io::TensorDirectory& files, const std::string& module) {
  return files.tensor(module + ".scales").t().contiguous();
}

/// Checks what the headers say; scales and zero points, which make the scheme, are read, codes when they are asked for.
ShippedTensor packed_tensor(const Files& files, const std::string& module, int64_t group_size, at::ScalarType dtype) {
  const auto required = [&](const std::string& suffix, at::ScalarType type, int64_t rows, int64_t columns) {
    if (!files->contains(module + suffix)) throw UserError(cat("missing tensor ", module, suffix));
    const io::TensorInfo& found = files->info(module + suffix);
    const bool fits = found.dtype == type && found.shape.size() == 2 && found.begin != found.end &&
                      (rows < 0 || found.shape[0] == rows) && (columns < 0 || found.shape[1] == columns);
    if (!fits)
      throw UserError(cat(module, suffix, ": expected ", c10::toString(type), " [", rows < 0 ? "in" : cat(rows), ", ",
                          columns < 0 ? "out / 8" : cat(columns), "], found ", c10::toString(found.dtype), " ",
                          at::IntArrayRef(found.shape)));
    return found.shape;
  };
  const std::vector<int64_t> packed = required(".qweight", at::kInt, -1, -1);
  const int64_t num_columns = packed[0], group = group_size > 0 ? group_size : num_columns;
  if (num_columns % group)
    throw UserError(cat(module, ".qweight: ", num_columns, " inputs do not fill whole groups of ", group));
  const int64_t num_groups = num_columns / group;
  required(".qzeros", at::kInt, num_groups, packed[1]);
  required(".scales", at::kHalf, num_groups, 8 * packed[1]);
  const bool symmetric = zero_points(*files, module).eq(8).all().item<bool>();
  const quant::Scheme scheme = integer_scheme(scales(*files, module), 4, group_size, symmetric, dtype);
  return {module + ".weight", {8 * packed[1], num_columns}, scheme, [files, module, scheme] {
            const at::Tensor codes = unpack_awq(files->tensor(module + ".qweight")).t().contiguous();
            return quant::QuantizedWeight{
                scheme, codes, scales(*files, module).to(quant::storage_dtype(scheme.scale_dtype, at::kHalf)),
                zero_points(*files, module)};
          }};
}

}  // namespace

void read_awq(const Files& files, const nlohmann::json& config, ShippedModel& model) {
  int64_t group_size = 0;
  try {
    group_size = parse_group(config);
  } catch (const nlohmann::json::exception& error) {
    refuse_awq(error.what());
  }
  read_packed_modules(files, {"qweight", "qzeros", "scales"}, model,
                      [&](const std::string& module) { return packed_tensor(files, module, group_size, model.dtype); });
}

}  // namespace satin::exporting
