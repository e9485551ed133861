#include "export/model_card.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/error.h"

namespace satin::exporting {
namespace {

/// The directory's name; of a checkpoint its run's too. Never the path.
std::string source_name(const fs::path& directory) {
  fs::path path = fs::absolute(directory).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // a trailing slash
  const fs::path parent = path.parent_path();
  if (parent.filename() != "checkpoints") return path.filename().string();
  return cat(parent.parent_path().filename().string(), ", ", path.filename().string());
}

/// "q_proj" of "model.layers.0.self_attn.q_proj.weight"; a bias keeps its word.
std::string kind_of(const std::string& name) {
  const std::string module = name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
  const size_t dot = module.rfind('.');
  if (!module.ends_with(".bias") || dot == std::string::npos) return module.substr(dot + 1);
  return module.substr(module.rfind('.', dot - 1) + 1);
}

std::string bits_text(double bits) { return fixed(bits, bits == static_cast<int>(bits) ? 0 : 3); }

std::string granularity(const quant::Scheme& scheme) {
  return scheme.per_tensor()     ? "a scale a tensor"
         : scheme.group_size < 0 ? "a scale a row"
                                 : cat("groups of ", scheme.group_size);
}

/// Layers of one training scheme that are stored in one way.
struct Row {
  std::set<std::string> kinds;
  int64_t num_tensors = 0, num_parameters = 0;
  double nominal = 0, effective = 0;  ///< bits, all parameters together
  std::string method, scales, stored;
};

std::string layers_table(const ShippedModel& trained, const ShippedModel& written) {
  std::map<std::string, Row> rows;
  for (const auto& tensor : trained.tensors) {
    const ShippedTensor* stored = written.find(tensor.name);
    if (!stored) continue;
    Row found;
    found.method = tensor.scheme ? quant::to_string(tensor.scheme->method) : "not quantized";
    found.scales = tensor.scheme ? granularity(*tensor.scheme) : "";
    if (tensor.scheme && tensor.scheme->has_columns()) found.scales += ", " + quant::describe_columns(*tensor.scheme);
    found.stored = stored->scheme ? cat(stored->scheme->bits, "-bit codes, ", granularity(*stored->scheme))
                                  : cat("dense ", c10::toString(stored->dtype));
    const double nominal =
        tensor.scheme ? tensor.scheme->nominal_bits() : 8. * static_cast<double>(c10::elementSize(tensor.dtype));
    Row& row =
        rows.try_emplace(cat(!tensor.scheme, nominal, found.method, found.scales, found.stored), found).first->second;
    const auto count = static_cast<double>(tensor.num_elements());
    row.kinds.insert(kind_of(tensor.name));
    ++row.num_tensors;
    row.num_parameters += tensor.num_elements();
    row.nominal += nominal * count;
    row.effective += stored->effective_bits * count;
  }
  std::string text =
      "| layers | tensors | parameters | trained as | bits | stored as | effective bits "
      "|\n|---|---|---|---|---|---|---|\n";
  for (const auto& [key, row] : rows) {
    std::string kinds;
    for (const auto& kind : row.kinds) kinds += (kinds.empty() ? "" : ", ") + kind;
    const auto count = static_cast<double>(std::max<int64_t>(1, row.num_parameters));
    text += cat("| ", kinds, " | ", row.num_tensors, " | ", row.num_parameters, " | ", row.method,
                row.scales.empty() ? "" : ", ", row.scales, " | ", bits_text(row.nominal / count), " | ", row.stored,
                " | ", bits_text(row.effective / count), " |\n");
  }
  return text;
}

std::string losses(const ExportReport& report) {
  if (report.is_exact()) return "every code, scale and value is the trained one, compared bit for bit after writing.\n";
  std::string text =
      "**lossy**: the format does not hold some layers exactly, and they were converted to the nearest that it "
      "holds.\n";
  if (report.num_activations_changed)
    text += cat("\n", report.num_activations_changed,
                " layers were trained with rounded activations that these files do not ask for.\n");
  if (report.damage.empty()) return text;
  text += "\n| layers | changed | largest error of a weight | relative RMS error |\n|---|---|---|---|\n";
  for (const Damage& damage : report.damage)
    text += cat("| ", damage.kind, " | ", damage.num_changed, " of ", damage.num_layers, " | ", damage.max_error, " | ",
                damage.relative_rms, " |\n");
  return text;
}

std::string perplexities(const std::vector<Evaluation>& evaluations) {
  if (evaluations.empty()) return "";
  std::string text = "\n## Perplexity\n| text | of these files | before the export | protocol |\n|---|---|---|---|\n";
  for (const Evaluation& evaluation : evaluations)
    text += cat("| ", evaluation.text, " | ", fixed(evaluation.perplexity, 4), " | ",
                evaluation.before ? fixed(*evaluation.before, 4) : "", " | ", evaluation.protocol, " |\n");
  return text;
}

std::string code_block(const Client& client) {
  return cat("\n", client.name, ":\n```", client.language, "\n", client.snippet, "\n```\n");
}

}  // namespace

std::string model_card(const ShippedModel& trained, const ShippedModel& written, const Format& format,
                       const ExportReport& report) {
  const Footprint size = footprint(written);
  const bool quantized = footprint(trained).num_quantized > 0;
  std::string text = "---\n";
  if (!format.library_name().empty()) text += cat("library_name: ", format.library_name(), "\n");
  text += cat("pipeline_tag: text-generation\ntags:\n- satin\n- ", format.name(), "\n",
              quantized ? "- quantized\n" : "", "# license: the model's and its data's; fill it in\n---\n");
  text += cat("# ", source_name(trained.directory), " (", format.name(), ")\n\nA ", trained.config.model_type,
              " model of ", size.num_parameters, " parameters, written by `satin export` in the format ", format.name(),
              "; ", losses(report), "\n## Bits\n", layers_table(trained, written),
              "\nBits: of a weight's code; effective bits: with the scales and zero points that are stored.");
  if (size.num_quantized)
    text += cat(" Packed weights together: ", size.num_quantized, " at ", fixed(size.effective_bits, 3),
                " effective bits.");
  text += cat(" Weight files: ", size.size_bytes, " bytes.\n");
  if (trained.kv_cache != "none")
    text += cat("\nTrained with keys and values rounded to ", trained.kv_cache,
                ", which the files do not say: ask for it where they run (`satin eval --kv-cache ", trained.kv_cache,
                "`).\n");
  text += perplexities(report.evaluations) + "\n## Loading\nDIRECTORY is where these files are.\n";
  for (const Client& client : format.clients()) text += code_block(client);
  return text + code_block({"Satin", "sh", "satin generate --model DIRECTORY --prompt \"Once upon a time\""});
}

}  // namespace satin::exporting
