#include "train/finish.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "dist/together.h"
#include "export/format.h"
#include "io/checkpoint.h"
#include "report/html.h"
#include "report/metrics.h"
#include "report/progress.h"
#include "train/models.h"

namespace satin::train {

namespace {

/// What was measured of the student, for the model card: exports hold its values bit for bit.
std::vector<exporting::Evaluation> evaluations_of(const nlohmann::json& evaluation) {
  std::vector<exporting::Evaluation> found;
  if (const auto student = evaluation.find("student"); student != evaluation.end())
    for (const auto& [text, result] : student->items())
      found.push_back({.text = text, .perplexity = result["perplexity"], .protocol = result["protocol"].dump()});
  return found;
}

/// Of teacher and student as they are shipped, on all ranks.
nlohmann::json evaluate(const config::Config& config, const Validation& validation, const fs::path& checkpoint,
                        const nn::BuildOptions& options, dist::Communicator& world) {
  const auto perplexities = [&](const fs::path& path, const std::string& label) {
    std::unique_ptr<models::Decoder> decoder;
    dist::together(world, [&] { decoder = exporting::build_decoder(exporting::open_model(path), options); });
    return validation.evaluate(*decoder, label, world);
  };
  nlohmann::json evaluation = nlohmann::json::object();
  if (validation.empty()) return evaluation;
  if (distils(config.loss)) evaluation["teacher"] = perplexities(teacher_path(config), "teacher");
  evaluation["student"] = perplexities(checkpoint, "student as shipped");
  return evaluation;
}

}  // namespace

void finish_run(const config::Config& config, const RunDirectory& directory, const Validation& validation,
                const fs::path& checkpoint, at::Device device, at::ScalarType compute_dtype,
                dist::Communicator& world) {
  nn::BuildOptions options;
  options.device = device;
  options.master_dtype = options.compute_dtype = compute_dtype == at::kDouble ? at::kDouble : at::kFloat;
  const nlohmann::json evaluation = evaluate(config, validation, checkpoint, options, world);
  if (world.rank() > 0) return;
  if (!evaluation.empty()) {
    write_file_atomically(directory.evaluation(), evaluation.dump(1) + "\n");
    const int64_t step = io::read_manifest(checkpoint).step;
    report::MetricsLog(directory.metrics(), step).append({{"step", step}, {"eval", evaluation["student"]}});
  }
  const exporting::ShippedModel shipped = exporting::open_model(checkpoint);
  for (const auto& name : config.export_.formats) {
    exporting::export_model(
        shipped, exporting::format(name), directory.exported(name), /*force=*/true,
        {.progress = report::show_part_done, .evaluate = [&](const fs::path&) { return evaluations_of(evaluation); }});
    end_progress();
    const exporting::Footprint footprint = exporting::footprint(exporting::open_model(directory.exported(name)));
    log_info(cat("exported ", directory.exported(name).string(), ": ", report::bytes_text(footprint.size_bytes),
                 ", read back and equal bit for bit"));
  }
  report::write_report({directory.path()}, directory.report());
  log_info(cat("report: ", directory.report().string()));
}

}  // namespace satin::train
