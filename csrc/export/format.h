// One export format: what it holds exactly, and how it is written.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "export/in_parallel.h"
#include "export/shipped_model.h"
#include "io/safetensors_writer.h"

namespace satin::exporting {

/// A quantized layer as far as it is known before its values are.
struct QuantizedLayer {
  std::string name;  ///< of the module or of its weight
  quant::Scheme scheme;
  int64_t out_features = 0, in_features = 0;
  bool has_bias = false;
};

/// A text's perplexity, for the model card.
struct Evaluation {
  std::string text;
  double perplexity;                  ///< of the files that were written
  std::optional<double> before = {};  ///< of the model that was exported
  std::string protocol = {};
};

/// What was lost, of one kind of layer ("q_proj"), by an export that may lose something.
struct Damage {
  std::string kind;
  int64_t num_layers = 0, num_changed = 0;  ///< with a value that differs
  double max_error = 0;                     ///< the largest difference of a value
  double relative_rms = 0;  ///< root mean square of differences over that of values, all layers together
};

struct WriteOptions {
  int64_t shard_bytes = io::kShardBytes;  ///< larger models are written in several files, by formats that can
  Progress progress = {};
  // Of export_model:
  bool lossy = false;  ///< what the format does not hold becomes the nearest that it holds (nearest.h)
  /// Called with the written and compared directory, before it gets its name.
  std::function<std::vector<Evaluation>(const fs::path& written)> evaluate = {};
};

/// How a program loads what was written, for the model card.
struct Client {
  std::string name;               ///< with what must be installed
  std::string language, snippet;  ///< of a code block; DIRECTORY stands for the export's path
};

class Format {
 public:
  virtual ~Format() = default;
  virtual std::string name() const = 0;   ///< as in export.formats and --format
  virtual std::string holds() const = 0;  ///< what it holds exactly, for messages
  /// Empty when weights of this scheme are held exactly (codes and scales bit for bit); else the reason.
  virtual std::string refusal(const quant::Scheme& scheme, at::ScalarType dtype) const = 0;
  /// False for a module or weight that is written dense in any case: any grid that `hf` holds will do.
  virtual bool packs(const std::string& /*name*/) const { return true; }
  /// Empty, or why the layers that it packs do not go together or have shapes that it does not hold, naming them.
  virtual std::string refusal_of_layers(const std::vector<QuantizedLayer>& /*layers*/) const { return ""; }
  /// Empty, or why it does not hold the scales or zero points of a weight that it packs.
  virtual std::string refusal_of_values(const quant::QuantizedWeight& /*weight*/) const { return ""; }
  /// Whether a file of its own holds everything: weights, configuration and tokenizer.
  virtual bool one_file() const { return false; }
  /// False for a tensor of the model that it leaves out: it is another one's copy, or made from the configuration.
  virtual bool stores(const ShippedModel& /*model*/, const std::string& /*name*/) const { return true; }
  /// Empty, or what refusal_of_values will ask of such a weight when training has ended, and what makes it sure now.
  virtual std::string checked_at_the_end(const quant::Scheme& /*scheme*/) const { return ""; }
  /// Programs that load it, beside satin.
  virtual std::vector<Client> clients() const { return {}; }
  /// Hugging Face's library_name, where there is one.
  virtual std::string library_name() const { return ""; }
  /// Writes weights and config.json into an existing empty directory, where (unless one_file) config.json and the
  /// tokenizer's files are already; takes each packed weight from held_weight(). Of the model's tensors it holds as
  /// many in memory as there are threads.
  virtual void write(const ShippedModel& model, const fs::path& directory, const WriteOptions& options) const = 0;
};

/// The tensor's codes and scales. Ends the export when `format` does not hold them: export_model then throws UserError
/// with the reason.
quant::QuantizedWeight held_weight(const Format& format, const ShippedTensor& tensor);

/// All formats. `format` throws UserError with the nearest name.
const std::vector<std::unique_ptr<Format>>& formats();
const Format& format(const std::string& name);

/// Throws UserError when `format` does not hold every layer of the model, naming layers and the formats that do.
void check_exact(const Format& format, const std::vector<QuantizedLayer>& layers, at::ScalarType dtype);

struct ExportReport {
  bool is_lossy = false;                ///< as asked; nothing need have been lost
  std::vector<Damage> damage;           ///< of the kinds of layers that changed
  int64_t num_activations_changed = 0;  ///< layers whose activations the files round otherwise than in training
  /// Whether every code, scale and value, and what is done to activations, is as trained.
  bool is_exact() const { return damage.empty() && num_activations_changed == 0; }
  std::vector<Evaluation> evaluations;
};

/// Writes, reads back from disk and compares every level, scale and value bit for bit (with what was trained or, when
/// lossy, with what it was converted to), and adds a model card; the directory appears whole or not at all. Columns of
/// fewer bits than their layer's codes are written as such codes, which is logged. Throws
/// UserError as check_exact, for values that the format does not hold, when `output` exists and `force` is not set, and
/// for a full disk; InternalError when what was read back differs.
ExportReport export_model(const ShippedModel& model, const Format& format, const fs::path& output, bool force,
                          const WriteOptions& options = {});

std::unique_ptr<Format> make_hf_format();
std::unique_ptr<Format> make_compressed_tensors_format();
/// version: 1 stores zero points minus one ("gptq"), 2 as they are ("gptq_v2"); 0: 1 for symmetric models, else 2.
/// Throws UserError for another version.
std::unique_ptr<Format> make_gptq_format(int version = 0);
std::unique_ptr<Format> make_awq_format();
std::unique_ptr<Format> make_bitnet_format();

}  // namespace satin::exporting
