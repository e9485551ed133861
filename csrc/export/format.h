// One export format: what it holds exactly, and how it is written.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "export/shipped_model.h"

namespace satin::exporting {

class Format {
 public:
  virtual ~Format() = default;
  virtual std::string name() const = 0;   ///< as in export.formats and --format
  virtual std::string holds() const = 0;  ///< what it holds exactly, for messages
  /// Empty when weights of this scheme are held exactly (codes and scales bit for bit); else the reason.
  virtual std::string refusal(const quant::Scheme& scheme, at::ScalarType dtype) const = 0;
  /// Writes weights and config.json into an existing empty directory.
  virtual void write(const ShippedModel& model, const fs::path& directory) const = 0;
};

/// All formats. `format` throws UserError with the nearest name.
const std::vector<std::unique_ptr<Format>>& formats();
const Format& format(const std::string& name);

/// Throws UserError when `format` does not hold every scheme of the model, naming tensors and the formats that do.
void check_exact(const Format& format, const std::vector<std::pair<std::string, quant::Scheme>>& schemes,
                 at::ScalarType dtype);

/// Writes, reads back from disk and compares every level and scale bit for bit; the directory appears whole or not at
/// all. Throws UserError when `output` exists and `force` is not set, InternalError when what was read back differs.
void export_model(const ShippedModel& model, const Format& format, const fs::path& output, bool force);

std::unique_ptr<Format> make_hf_format();
std::unique_ptr<Format> make_compressed_tensors_format();

}  // namespace satin::exporting
