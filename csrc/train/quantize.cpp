#include "train/quantize.h"

#include <nlohmann/json.hpp>

#include "config/config.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "io/checkpoint.h"
#include "ops/device.h"
#include "train/calibrate.h"
#include "train/finish.h"
#include "train/models.h"
#include "train/quantization_table.h"
#include "train/training_data.h"

namespace satin::train {

void quantize(const config::Config& config) {
  SATIN_CHECK(config.quantization, "a config without quantization");
  const at::Device device = ops::resolve_device(config.train.device);
  const at::ScalarType compute_dtype = ops::resolve_compute_dtype(config.train.compute_dtype, device);
  const RunDirectory directory(config.train.output_dir, {});
  log_to_file(directory.log());
  ops::configure_numerics(config.train.deterministic);
  const auto tokenizer = tokenizer::Tokenizer::load(config.model.path);
  const Student student = build_student(config, student_options(device, compute_dtype), {});
  check_vocabulary(tokenizer, student.decoder->config(), config.model.path);
  check_exports(config, student);
  const Validation validation(config, tokenizer);
  if (needs_calibration(student)) calibrate(config, student, open_training_data(config, tokenizer, directory.tokens()));
  const auto table = quant::quantization_table(*student.registry, student.decoder->parameters());
  log_info(quantization_text(table));
  write_file_atomically(directory.quantization_table(), quantization_json(table).dump(1) + "\n");
  write_file_atomically(directory.config(), config::dump(config));

  const fs::path checkpoint =
      io::save_checkpoint(directory.path(), checkpoint_contents(config, student), config.checkpoint.keep);
  finish_run(config, directory, validation, checkpoint, device, compute_dtype);
  close_log_file();
}

}  // namespace satin::train
