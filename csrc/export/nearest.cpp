#include "export/nearest.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>

#include "core/error.h"
#include "export/refusal.h"

namespace satin::exporting {
namespace {

using quant::Activations;
using quant::Method;
using quant::Scheme;
using quant::Storage;

/// Bits of the integer grid that has the scheme's levels: 3 for {-3, -1, 1, 3}, 2 for a sign.
int level_bits(const Scheme& scheme) { return scheme.method == Method::kSeq ? 3 : std::max(2, scheme.bits); }

Storage storage_of(at::ScalarType dtype) { return dtype == at::kHalf ? Storage::kFloat16 : Storage::kBFloat16; }

Scheme integer_grid(const Scheme& scheme, bool asymmetric, int bits) {
  Scheme grid = scheme;
  grid.method = asymmetric ? Method::kLsqAsymmetric : Method::kLsq;
  grid.bits = bits;
  return grid;
}

/// Grids for a layer, the best first: itself, those that have its levels by size, then the others from the largest.
/// None below `lowest_bits`.
std::vector<Scheme> grids_for(const Scheme& scheme, int lowest_bits) {
  std::vector<Scheme> grids;
  const int needed = level_bits(scheme);
  const bool asymmetric = scheme.has_zero_point();
  if (needed >= lowest_bits) grids.push_back(scheme);
  if (scheme.method == Method::kOneBit) return grids;  // its weight is not all that its layer computes with
  for (int bits = std::max(needed, lowest_bits); bits <= 8; ++bits) {
    grids.push_back(integer_grid(scheme, asymmetric, bits));
    if (asymmetric && bits > needed) grids.push_back(integer_grid(scheme, false, bits));  // every code - zero point
  }
  for (int bits = needed - 1; bits >= std::max(2, lowest_bits); --bits)
    grids.push_back(integer_grid(scheme, asymmetric, bits));
  return grids;
}

bool is_held(const Format& format, const QuantizedLayer& layer, at::ScalarType dtype) {
  return first_refusal(format, {layer}, dtype).empty();
}

/// The first that the format holds. (Of activations and scales it gives up only what the format has no place for.)
std::optional<QuantizedLayer> nearest_layer(const Format& format, const QuantizedLayer& layer, at::ScalarType dtype,
                                            const std::vector<int64_t>& group_sizes, int lowest_bits) {
  for (const Scheme& grid : grids_for(layer.scheme, lowest_bits))
    for (const int64_t group_size : group_sizes)
      for (const Storage scales : {grid.scale_dtype, storage_of(dtype)})
        for (const Activations activations : {grid.activations, Activations::kInt8, Activations::kNone}) {
          if (grid.activations == Activations::kNone && activations != Activations::kNone) continue;
          if (grid.activations == Activations::kFloat8 && activations == Activations::kInt8) continue;
          QuantizedLayer found = layer;
          found.scheme = grid;
          found.scheme.group_size = group_size;
          found.scheme.scale_dtype = scales;
          found.scheme.activations = activations;
          if (is_held(format, found, dtype)) return found;
        }
  return {};
}

/// The largest group that divides the groups of all; -1 when all have a scale a row.
int64_t common_group(const std::vector<QuantizedLayer>& layers, const Format& format) {
  int64_t common = 0;
  bool rows = true;
  for (const auto& layer : layers) {
    if (!format.packs(layer.name)) continue;
    rows = rows && layer.scheme.group_size <= 0;
    common = std::gcd(common, layer.scheme.group_size > 0 ? layer.scheme.group_size : layer.in_features);
  }
  return rows ? -1 : common;
}

/// Groups that divide the layer's, the largest first.
std::vector<int64_t> dividing_groups(const QuantizedLayer& layer) {
  std::vector<int64_t> sizes = {layer.scheme.group_size};
  const int64_t present = layer.scheme.group_size > 0 ? layer.scheme.group_size : layer.in_features;
  for (int64_t size = 256; size >= 16; size /= 2)
    if (size < present && present % size == 0) sizes.push_back(size);
  return sizes;
}

/// Whether level + middle is a code of the grid for every level of the scheme.
bool has_levels(const Scheme& grid, const Scheme& scheme) {
  const int needed = level_bits(scheme);
  if (grid.has_zero_point() == scheme.has_zero_point()) return grid.bits >= needed;
  return scheme.has_zero_point() && grid.bits > needed;
}

at::Tensor float16(const at::Tensor& scale) { return scale.to(at::kFloat).clamp(-65504, 65504).to(at::kHalf); }

/// The last part of the module's name.
std::string projection_of(const std::string& name) {
  const std::string module = name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
  return module.substr(module.rfind('.') + 1);
}

}  // namespace

std::optional<std::vector<QuantizedLayer>> nearest_layers(const Format& format,
                                                          const std::vector<QuantizedLayer>& layers,
                                                          at::ScalarType dtype) {
  const auto with = [&](bool one_group, int lowest_bits) -> std::optional<std::vector<QuantizedLayer>> {
    std::vector<QuantizedLayer> found;
    const std::vector<int64_t> common = {common_group(layers, format)};
    for (const auto& layer : layers) {
      const bool packs = format.packs(layer.name);
      const auto nearest = nearest_layer(format, layer, dtype, one_group && packs ? common : dividing_groups(layer),
                                         packs ? lowest_bits : 0);
      if (!nearest) return {};
      found.push_back(*nearest);
    }
    return found;
  };
  // Formats differ in what they ask of layers together: nothing, one group size, or one number of bits as well.
  for (const bool one_group : {false, true})
    for (int lowest_bits : {0, 2, 3, 4, 5, 6, 7, 8})
      if (auto found = with(one_group, lowest_bits); found && first_refusal(format, *found, dtype).empty())
        return found;
  return {};
}

quant::QuantizedWeight convert(const quant::QuantizedWeight& weight, const Scheme& scheme) {
  if (scheme == weight.scheme) return weight;
  const int64_t num_rows = weight.codes.size(0), num_columns = weight.codes.size(1), present = weight.scale.size(1),
                num_groups = scheme.groups(num_columns);
  const bool same_grid = scheme.method == weight.scheme.method && scheme.bits == weight.scheme.bits;
  if ((!same_grid && !has_levels(scheme, weight.scheme)) || num_groups % present)
    return quant::round_to_nearest(quant::dequantize(weight).to(at::kFloat), scheme);
  const auto repeated = [&](const at::Tensor& state) { return state.repeat_interleave(num_groups / present, 1); };
  quant::QuantizedWeight converted;
  converted.scheme = scheme;
  const at::Tensor scale = repeated(weight.scale);
  converted.scale = scheme.scale_dtype == Storage::kFloat16
                        ? float16(scale)
                        : scale.to(quant::storage_dtype(scheme.scale_dtype, at::kFloat));
  converted.zero_point = same_grid || scheme.has_zero_point()
                             ? repeated(weight.zero_point)
                             : at::full({num_rows, num_groups}, 1 << (scheme.bits - 1), at::kInt);
  const int64_t step = quant::code_step(scheme), top = scheme.has_three_levels() ? 2 : (1 << scheme.bits) - 1;
  converted.codes = at::empty_like(weight.codes);
  const at::Tensor ratio = (scale.to(at::kFloat) / converted.scale.to(at::kFloat)).nan_to_num(0, 0, 0);
  for (int64_t first = 0, count = quant::rows_at_once(num_columns); first < num_rows; first += count) {
    const int64_t last = std::min(num_rows, first + count);
    const at::Tensor levels = quant::levels(quant::rows(weight, first, last)).view({last - first, num_groups, -1});
    const at::Tensor codes = ((levels * ratio.slice(0, first, last).unsqueeze(-1) +
                               converted.zero_point.slice(0, first, last).unsqueeze(-1)) /
                              step)
                                 .round();
    converted.codes.slice(0, first, last).copy_(codes.clamp(0, top).view({last - first, num_columns}));
  }
  return converted;
}

ShippedModel nearest_model(const ShippedModel& model, const Format& format) {
  const auto layers = nearest_layers(format, layers_of(model), model.dtype);
  if (!layers) check_exact(format, layers_of(model), model.dtype);  // throws: nothing is near
  SATIN_CHECK(layers, format.name(), " holds what it has nothing near to");
  ShippedModel nearest = model;
  for (const QuantizedLayer& layer : *layers) {
    const ShippedTensor tensor = nearest.tensors.extract(nearest.tensors.find(layer.name)).value();
    nearest.add({tensor.name, tensor.shape, layer.scheme, [tensor, scheme = layer.scheme, &format] {
                   quant::QuantizedWeight weight = convert(tensor.quantized(), scheme);
                   if (!format.packs(tensor.name) || format.refusal_of_values(weight).empty()) return weight;
                   Scheme half = scheme;
                   half.scale_dtype = Storage::kFloat16;
                   return convert(weight, half);
                 }});
  }
  return nearest;
}

std::vector<Damage> damage(const ShippedModel& trained, const ShippedModel& nearest, const Progress& progress) {
  std::vector<const ShippedTensor*> tensors;
  std::vector<int64_t> sizes;
  for (const auto& tensor : trained.tensors)
    if (tensor.scheme) {
      tensors.push_back(&tensor);
      sizes.push_back(tensor.num_elements());
    }
  struct Sums {
    Damage damage;
    double error = 0, value = 0;
  };
  std::map<std::string, Sums> kinds;
  std::mutex mutex;
  const auto compare = [&](size_t i) {
    const at::Tensor all = tensors[i]->values(), all_near = nearest.find(tensors[i]->name)->values();
    double error = 0, value = 0, largest = 0;
    for (int64_t first = 0, step = quant::rows_at_once(all.size(1)); first < all.size(0); first += step) {
      const at::Tensor a = all.slice(0, first, first + step).to(at::kDouble);
      const at::Tensor difference = all_near.slice(0, first, first + step).to(at::kDouble) - a;
      error += difference.square().sum().item<double>();
      value += a.square().sum().item<double>();
      largest = std::max(largest, difference.abs().max().item<double>());
    }
    const std::lock_guard lock(mutex);
    Sums& sums = kinds[projection_of(tensors[i]->name)];
    ++sums.damage.num_layers;
    sums.damage.num_changed += largest > 0;
    sums.damage.max_error = std::max(sums.damage.max_error, largest);
    sums.error += error;
    sums.value += value;
  };
  in_parallel(sizes, compare, "comparing", progress);
  std::vector<Damage> found;
  for (auto& [kind, sums] : kinds) {
    if (sums.damage.num_changed == 0) continue;
    sums.damage.kind = kind;
    sums.damage.relative_rms = sums.value > 0 ? std::sqrt(sums.error / sums.value) : 0;
    found.push_back(sums.damage);
  }
  return found;
}

}  // namespace satin::exporting
