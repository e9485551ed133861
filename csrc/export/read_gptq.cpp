#include <ATen/ATen.h>

#include "core/error.h"
#include "export/gptq.h"
#include "export/integer_grid.h"
#include "export/pack.h"

namespace satin::exporting {
namespace {

struct Settings {
  int64_t bits, group_size;
  int version;
  bool symmetric;
};

[[noreturn]] void refuse(const std::string& what) { throw UserError(cat("quantization_config of gptq: ", what)); }

Settings parse_settings(const nlohmann::json& config) {
  Settings settings{config.at("bits").get<int64_t>(), config.value("group_size", int64_t{-1}), 0,
                    config.value("sym", true)};
  if (settings.bits != 2 && settings.bits != 3 && settings.bits != 4 && settings.bits != 8)
    refuse(cat("bits: expected 2, 3, 4 or 8, found ", settings.bits));
  if (settings.group_size == 0 || settings.group_size < -1)
    refuse(cat("group_size: expected -1 or a positive number, found ", settings.group_size));
  if (config.value("desc_act", false)) refuse("desc_act: expected false, activation order is not supported");
  const std::string packing = config.value("pack_dtype", "int32");
  if (packing != "int32") refuse(cat("pack_dtype: expected int32, found '", packing, "'"));
  // Files from before there was a second version name none.
  const std::string version = config.value("checkpoint_format", config.value("format", "gptq"));
  if (version != "gptq" && version != "gptq_v2")
    refuse(cat("checkpoint_format: expected gptq or gptq_v2, found '", version, "'"));
  settings.version = version == "gptq" ? 1 : 2;
  if (const auto rules = config.find("dynamic"); rules != config.end() && rules->is_object())
    for (const auto& [pattern, rule] : rules->items())
      if (!pattern.starts_with("-:")) refuse(cat("dynamic: layers of their own bits are not supported: ", pattern));
  return settings;
}

/// The tensors of one module, checked against each other and the settings.
class Module {
 public:
  Module(const io::TensorDirectory& tensors, std::string name, const Settings& settings)
      : tensors_(tensors), name_(std::move(name)), settings_(settings) {}

  quant::QuantizedWeight read(at::ScalarType dtype) const {
    const at::Tensor packed = required(".qweight");
    if (packed.scalar_type() != at::kInt || packed.dim() != 2 || packed.numel() == 0 ||
        packed.size(0) * 32 % settings_.bits)
      misfit(".qweight", packed, cat("int32 [in * ", settings_.bits, " / 32, out]"));
    const int64_t num_rows = packed.size(1), num_columns = packed.size(0) * 32 / settings_.bits;
    const int64_t group = settings_.group_size > 0 ? settings_.group_size : num_columns;
    if (num_columns % group || num_rows * settings_.bits % 32)
      throw UserError(cat(name_, ".qweight: a weight [", num_rows, ", ", num_columns, "] of ", settings_.bits,
                          " bits does not fill whole groups of ", group, " and whole words"));
    const int64_t num_groups = num_columns / group;
    check_order(num_columns, group);

    const int bits = static_cast<int>(settings_.bits);
    const IntegerCodes codes{unpack_bits(packed.t().contiguous(), bits, num_columns),
                             read_zero_points(num_groups, num_rows)};
    const at::Tensor scales = required(".scales");
    if (scales.scalar_type() != at::kHalf || scales.sizes() != at::IntArrayRef({num_groups, num_rows}))
      misfit(".scales", scales, cat("Half [", num_groups, ", ", num_rows, "]"));
    return integer_weight(codes, scales.t().contiguous(), bits, settings_.group_size, settings_.symmetric, dtype);
  }

 private:
  at::Tensor required(const std::string& suffix) const {
    if (!tensors_.contains(name_ + suffix)) throw UserError(cat("missing tensor ", name_, suffix));
    return tensors_.tensor(name_ + suffix);
  }
  [[noreturn]] void misfit(const std::string& suffix, const at::Tensor& tensor, const std::string& expected) const {
    throw UserError(cat(name_, suffix, ": expected ", expected, ", found ", c10::toString(tensor.scalar_type()), " ",
                        tensor.sizes()));
  }

  void check_order(int64_t num_columns, int64_t group) const {
    if (!tensors_.contains(name_ + ".g_idx")) return;
    const at::Tensor found = tensors_.tensor(name_ + ".g_idx");
    if (found.scalar_type() != at::kInt || found.sizes() != at::IntArrayRef({num_columns}))
      misfit(".g_idx", found, cat("Int [", num_columns, "]"));
    if (!found.equal(at::arange(num_columns, at::kInt).floor_divide(group).to(at::kInt)))
      throw UserError(cat(name_, ".g_idx: expected i / ", group,
                          " at each i, found another order; activation order is not supported"));
  }

  /// [N, G] int32.
  at::Tensor read_zero_points(int64_t num_groups, int64_t num_rows) const {
    const at::Tensor packed = required(".qzeros");
    const int64_t num_words = num_rows * settings_.bits / 32;
    if (packed.scalar_type() != at::kInt || packed.sizes() != at::IntArrayRef({num_groups, num_words}))
      misfit(".qzeros", packed, cat("int32 [", num_groups, ", ", num_words, "]"));
    at::Tensor zero = unpack_bits(packed, static_cast<int>(settings_.bits), num_rows).to(at::kInt);
    if (settings_.version == 1) zero = zero + 1;
    const int64_t end = int64_t{1} << settings_.bits;
    if (zero.eq(end).any().item<bool>())
      throw UserError(cat(name_, ".qzeros: zero points of ", end - 1,
                          " plus one: clients differ on whether that is 0 or ", end,
                          "; write the file as checkpoint_format gptq_v2"));
    if (settings_.symmetric && !zero.eq(end / 2).all().item<bool>())
      throw UserError(cat(name_, ".qzeros: sym is true, expected every zero point to be ", end / 2, ", found ",
                          zero.min().item<int>(), " to ", zero.max().item<int>(),
                          "; is checkpoint_format what the file was written as?"));
    return zero.t().contiguous();
  }

  const io::TensorDirectory& tensors_;
  std::string name_;
  Settings settings_;
};

}  // namespace

void read_gptq(const io::TensorDirectory& tensors, const nlohmann::json& config, ShippedModel& model) {
  Settings settings{};
  try {
    settings = parse_settings(config);
  } catch (const nlohmann::json::exception& error) {
    refuse(error.what());
  }
  read_packed_modules(tensors, {"qzeros", "scales", "g_idx"}, model,
                      [&](const std::string& module) { return Module(tensors, module, settings).read(model.dtype); });
}

}  // namespace satin::exporting
