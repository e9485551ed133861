#include "train/quantize.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "config/config.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "io/checkpoint.h"
#include "ops/device.h"
#include "ptq/quantize_blocks.h"
#include "report/metrics.h"
#include "report/progress.h"
#include "train/calibrate.h"
#include "train/finish.h"
#include "train/models.h"
#include "train/quantization_table.h"
#include "train/quantize_memory.h"
#include "train/training_data.h"

namespace satin::train {
namespace {

nlohmann::ordered_json line_of(const ptq::BlockReport& report) {
  nlohmann::ordered_json line{{"step", report.block}, {"seconds", report.seconds}};
  if (report.training) {
    const auto part = [](const ptq::BlockLoss& loss) {
      return nlohmann::ordered_json{{"outputs", loss.outputs}, {"gradients", loss.gradients}};
    };
    line["before"] = part(report.training->before);
    line["after"] = part(report.training->after);
  }
  for (const auto& layer : report.layers)
    line["layers"][layer.name] = {{"error", layer.fidelity.error},
                                  {"forward_cosine", layer.fidelity.forward_cosine},
                                  {"gradient_cosine", layer.fidelity.gradient_cosine}};
  return line;
}

/// "block 3 of 8: outputs cosine .981 at least, gradients .944; 1.2 s, 6s left".
std::string text_of(const ptq::BlockReport& report, int64_t num_blocks) {
  double forward = 1, gradient = 1;
  for (const auto& layer : report.layers) {
    forward = std::min(forward, layer.fidelity.forward_cosine);
    gradient = std::min(gradient, layer.fidelity.gradient_cosine);  // a NaN changes nothing
  }
  const bool measured = !report.layers.empty() && report.layers.front().fidelity.gradient_cosine ==
                                                      report.layers.front().fidelity.gradient_cosine;
  std::string text = cat("block ", report.block + 1, " of ", num_blocks, ": least cosine of a layer's outputs ",
                         fixed(forward, 4), measured ? cat(", of its gradients ", fixed(gradient, 4)) : "");
  if (report.training) {
    const double weight = report.training->weight;
    const double before = report.training->before.total(weight), after = report.training->after.total(weight);
    text += cat("; loss ", before, " -> ", after);
  }
  return cat(text, "; ", fixed(report.seconds, 1), " s, ",
             report::duration_text(report.seconds * static_cast<double>(num_blocks - report.block - 1)), " left");
}

/// The run's folder of finished blocks, and the log of what was measured of each.
void quantize_student(const config::Config& config, const Student& student, const data::Dataset& dataset,
                      const ptq::StoredBlocks& stored, const fs::path& log) {
  report::MetricsLog layers(log, stored.num_finished() - 1);
  const ptq::Calibration text = read_sequences(dataset, config.quantization->calibration_sequences);
  log_info(
      cat("ptq: ", config.ptq.method, " on ", text.tokens.size(0), " sequences of ", text.tokens.size(1), " tokens"));
  const int64_t num_blocks = student.decoder->config().num_layers;
  ptq::quantize_blocks(*student.decoder, *student.registry, text, config, stored, [&](const ptq::BlockReport& report) {
    layers.append(line_of(report));
    end_progress();
    log_info(text_of(report, num_blocks));
  });
}

}  // namespace

void quantize(const config::Config& config, const Resume& resume) {
  SATIN_CHECK(config.quantization, "a config without quantization");
  const at::Device device = ops::resolve_device(config.train.device);
  const at::ScalarType compute_dtype = ops::resolve_compute_dtype(config.train.compute_dtype, device);
  const RunDirectory directory(config.train.output_dir, resume);
  log_to_file(directory.log());
  ops::configure_numerics(config.train.deterministic);
  const auto tokenizer = tokenizer::Tokenizer::load(config.model.path);
  const Validation validation(config, tokenizer);
  const bool by_blocks = ptq::walks_blocks(config.ptq);
  std::optional<fs::path> checkpoint;
  if (resume.enabled) checkpoint = io::latest_checkpoint(directory.path());
  std::optional<ptq::StoredBlocks> stored;
  if (by_blocks) stored.emplace(directory.unfinished_blocks(), config::dump(config));
  if (checkpoint) {
    log_info(cat("already quantized: ", checkpoint->string()));
  } else {
    ops::reset_peak_memory(device);
    const Student student = build_student(config, student_options(device, compute_dtype), {});
    check_vocabulary(tokenizer, student.decoder->config(), config.model.path);
    check_exports(config, student);
    if (by_blocks || needs_calibration(student)) {
      const data::Dataset dataset = open_training_data(config, tokenizer, directory.tokens());
      if (needs_calibration(student)) calibrate(config, student, dataset);
      if (by_blocks) quantize_student(config, student, dataset, *stored, directory.layers());
    }
    const MemoryEstimate estimate = estimate_quantize_memory(config, student, compute_dtype, device);
    log_info(cat("peak memory ", report::bytes_text(ops::peak_memory_bytes(device)),
                 device.is_cuda() ? cat(", predicted ", report::bytes_text(estimate.total_bytes())) : ""));
    const auto table = quant::quantization_table(*student.registry, student.decoder->parameters());
    log_info(quantization_text(table));
    write_file_atomically(directory.quantization_table(), quantization_json(table).dump(1) + "\n");
    write_file_atomically(directory.config(), config::dump(config));
    checkpoint = io::save_checkpoint(directory.path(), checkpoint_contents(config, student), config.checkpoint.keep);
  }
  finish_run(config, directory, validation, *checkpoint, device, compute_dtype);
  if (stored) stored->remove();
  close_log_file();
}

}  // namespace satin::train
