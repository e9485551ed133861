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

[[noreturn]] void refuse_gptq(const std::string& what) { throw UserError(cat("quantization_config of gptq: ", what)); }

Settings parse_settings(const nlohmann::json& config) {
  Settings settings{config.at("bits").get<int64_t>(), config.value("group_size", int64_t{-1}), 0,
                    config.value("sym", true)};
  if (settings.bits != 2 && settings.bits != 3 && settings.bits != 4 && settings.bits != 8)
    refuse_gptq(cat("bits: expected 2, 3, 4 or 8, found ", settings.bits));
  if (settings.group_size == 0 || settings.group_size < -1)
    refuse_gptq(cat("group_size: expected -1 or a positive number, found ", settings.group_size));
  if (config.value("desc_act", false)) refuse_gptq("desc_act: expected false, activation order is not supported");
  const std::string packing = config.value("pack_dtype", "int32");
  if (packing != "int32") refuse_gptq(cat("pack_dtype: expected int32, found '", packing, "'"));
  // Files from before there was a second version name none.
  const std::string version = config.value("checkpoint_format", config.value("format", "gptq"));
  if (version != "gptq" && version != "gptq_v2")
    refuse_gptq(cat("checkpoint_format: expected gptq or gptq_v2, found '", version, "'"));
  settings.version = version == "gptq" ? 1 : 2;
  if (const auto rules = config.find("dynamic"); rules != config.end() && rules->is_object())
    for (const auto& [pattern, rule] : rules->items())
      if (!pattern.starts_with("-:"))
        refuse_gptq(cat("dynamic: layers of their own bits are not supported: ", pattern));
  return settings;
}

/// The tensors of one module, checked against each other and the settings: all but the codes when it is made.
class Module {
 public:
  Module(Files files, std::string name, const Settings& settings)
      : files_(std::move(files)), name_(std::move(name)), settings_(settings) {
    const io::TensorInfo& packed = required(".qweight");
    if (packed.dtype != at::kInt || packed.shape.size() != 2 || packed.begin == packed.end ||
        packed.shape[0] * 32 % settings_.bits)
      misfit(".qweight", cat("int32 [in * ", settings_.bits, " / 32, out]"));
    num_rows_ = packed.shape[1];
    num_columns_ = packed.shape[0] * 32 / settings_.bits;
    const int64_t group = settings_.group_size > 0 ? settings_.group_size : num_columns_;
    if (num_columns_ % group || num_rows_ * settings_.bits % 32)
      throw UserError(cat(name_, ".qweight: a weight [", num_rows_, ", ", num_columns_, "] of ", settings_.bits,
                          " bits does not fill whole groups of ", group, " and whole words"));
    const int64_t num_groups = num_columns_ / group, num_words = num_rows_ * settings_.bits / 32;
    check_order(group);
    if (const io::TensorInfo& zeros = required(".qzeros");
        zeros.dtype != at::kInt || zeros.shape != std::vector{num_groups, num_words})
      misfit(".qzeros", cat("int32 [", num_groups, ", ", num_words, "]"));
    if (const io::TensorInfo& scales = required(".scales");
        scales.dtype != at::kHalf || scales.shape != std::vector{num_groups, num_rows_})
      misfit(".scales", cat("Half [", num_groups, ", ", num_rows_, "]"));
    check_zero_points();
  }

  ShippedTensor tensor(at::ScalarType dtype) const {
    const quant::Scheme scheme =
        integer_scheme(scales(), static_cast<int>(settings_.bits), settings_.group_size, settings_.symmetric, dtype);
    return {name_ + ".weight", {num_rows_, num_columns_}, scheme, [module = *this, scheme] {
              const at::Tensor packed = module.files_->tensor(module.name_ + ".qweight").t().contiguous();
              return quant::QuantizedWeight{scheme, unpack_bits(packed, scheme.bits, module.num_columns_),
                                            module.scales().to(quant::storage_dtype(scheme.scale_dtype, at::kHalf)),
                                            module.zero_points()};
            }};
  }

 private:
  const io::TensorInfo& required(const std::string& suffix) const {
    if (!files_->contains(name_ + suffix)) throw UserError(cat("missing tensor ", name_, suffix));
    return files_->info(name_ + suffix);
  }
  [[noreturn]] void misfit(const std::string& suffix, const std::string& expected) const {
    const io::TensorInfo& found = required(suffix);
    throw UserError(cat(name_, suffix, ": expected ", expected, ", found ", c10::toString(found.dtype), " ",
                        at::IntArrayRef(found.shape)));
  }

  void check_order(int64_t group) const {
    if (!files_->contains(name_ + ".g_idx")) return;
    const io::TensorInfo& found = required(".g_idx");
    if (found.dtype != at::kInt || found.shape != std::vector{num_columns_})
      misfit(".g_idx", cat("Int [", num_columns_, "]"));
    if (!files_->tensor(name_ + ".g_idx").equal(at::arange(num_columns_, at::kInt).floor_divide(group).to(at::kInt)))
      throw UserError(cat(name_, ".g_idx: expected i / ", group,
                          " at each i, found another order; activation order is not supported"));
  }

  void check_zero_points() const {
    const at::Tensor zero = zero_points();
    const int64_t end = int64_t{1} << settings_.bits;
    if (zero.eq(end).any().item<bool>())
      throw UserError(cat(name_, ".qzeros: zero points of ", end - 1,
                          " plus one: clients differ on whether that is 0 or ", end,
                          "; write the file as checkpoint_format gptq_v2"));
    if (settings_.symmetric && !zero.eq(end / 2).all().item<bool>())
      throw UserError(cat(name_, ".qzeros: sym is true, expected every zero point to be ", end / 2, ", found ",
                          zero.min().item<int>(), " to ", zero.max().item<int>(),
                          "; is checkpoint_format what the file was written as?"));
  }

  /// [N, G] int32.
  at::Tensor zero_points() const {
    const at::Tensor packed = files_->tensor(name_ + ".qzeros");
    const at::Tensor zero = unpack_bits(packed, static_cast<int>(settings_.bits), num_rows_).to(at::kInt);
    return (settings_.version == 1 ? zero + 1 : zero).t().contiguous();
  }
  /// [N, G] fp16.
  at::Tensor scales() const { return files_->tensor(name_ + ".scales").t().contiguous(); }

  Files files_;
  std::string name_;
  Settings settings_;
  int64_t num_rows_ = 0, num_columns_ = 0;
};

}  // namespace

void read_gptq(const Files& files, const nlohmann::json& config, ShippedModel& model) {
  Settings settings{};
  try {
    settings = parse_settings(config);
  } catch (const nlohmann::json::exception& error) {
    refuse_gptq(error.what());
  }
  read_packed_modules(files, {"qweight", "qzeros", "scales", "g_idx"}, model,
                      [&](const std::string& module) { return Module(files, module, settings).tensor(model.dtype); });
}

}  // namespace satin::exporting
