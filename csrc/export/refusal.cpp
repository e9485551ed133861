#include "export/refusal.h"

#include <algorithm>

#include "core/error.h"
#include "export/integer_grid.h"
#include "export/nearest.h"

namespace satin::exporting {

std::vector<QuantizedLayer> layers_of(const ShippedModel& model) {
  std::vector<QuantizedLayer> layers;
  for (const auto& tensor : model.tensors)
    if (tensor.scheme)
      layers.push_back({tensor.name, *tensor.scheme, tensor.shape[0], tensor.shape[1],
                        model.find(module_of(tensor.name) + ".bias") != nullptr});
  return layers;
}

std::string first_refusal(const Format& format, const std::vector<QuantizedLayer>& layers, at::ScalarType dtype) {
  std::vector<QuantizedLayer> packed;
  for (const auto& layer : layers) {
    const bool packs = format.packs(layer.name);
    if (packs) packed.push_back(layer);
    const std::string reason = (packs ? format : exporting::format("hf")).refusal(layer.scheme, dtype);
    if (!reason.empty()) return cat(layer.name, " (", quant::describe(layer.scheme), ") exactly: ", reason);
  }
  const std::string reason = format.refusal_of_layers(packed);
  return reason.empty() ? "" : cat("this model exactly: ", reason);
}

std::vector<const Format*> exact_formats(const std::vector<QuantizedLayer>& layers, at::ScalarType dtype,
                                         const ShippedModel* model) {
  std::vector<const Format*> exact;
  for (const auto& format : formats())
    if (first_refusal(*format, layers, dtype).empty()) exact.push_back(format.get());
  if (model)
    for (const auto& tensor : model->tensors) {
      if (!tensor.scheme) continue;
      const quant::QuantizedWeight weight = tensor.quantized();
      std::erase_if(exact, [&](const Format* format) {
        return format->packs(tensor.name) && !format->refusal_of_values(weight).empty();
      });
    }
  return exact;
}

namespace {

/// Which schemes would do in this format; nothing when none is near.
std::string advice(const Format& format, const std::vector<QuantizedLayer>& layers, at::ScalarType dtype) {
  const auto nearest = nearest_layers(format, layers, dtype);
  if (!nearest) return "";
  for (size_t i = 0; i < layers.size(); ++i)
    if (!(nearest->at(i).scheme == layers[i].scheme))
      return cat(". ", format.name(), " would hold ", layers[i].name, " as ", quant::describe(nearest->at(i).scheme),
                 ": train with that, or `satin export --lossy` converts to it");
  return cat(". `satin export --lossy` rounds what ", format.name(), " does not hold");
}

}  // namespace

void refuse(const Format& format, const std::string& reason, const std::vector<const Format*>& exact,
            const std::vector<QuantizedLayer>& layers, at::ScalarType dtype) {
  std::string names;
  for (const Format* other : exact) names += (names.empty() ? "" : ", ") + other->name();
  throw UserError(cat("format ", format.name(), " cannot hold ", reason, ". It holds ", format.holds(),
                      ". Formats that hold this model exactly: ", names.empty() ? "none" : names,
                      advice(format, layers, dtype)));
}

void check_exact(const Format& format, const std::vector<QuantizedLayer>& layers, at::ScalarType dtype) {
  if (const std::string reason = first_refusal(format, layers, dtype); !reason.empty())
    refuse(format, reason, exact_formats(layers, dtype, nullptr), layers, dtype);
}

quant::QuantizedWeight held_weight(const Format& format, const ShippedTensor& tensor) {
  quant::QuantizedWeight weight = tensor.quantized();
  if (const std::string reason = format.refusal_of_values(weight); !reason.empty())
    throw ValueRefusal{cat("this model exactly: ", tensor.name, ": ", reason)};
  return weight;
}

}  // namespace satin::exporting
