#include "train/models.h"

#include <ATen/core/grad_mode.h>

#include "config/config.h"
#include "core/error.h"
#include "core/log.h"
#include "export/format.h"
#include "io/pretrained.h"
#include "quant/policy.h"

namespace satin::train {
namespace fs = std::filesystem;

nn::BuildOptions student_options(at::Device device, at::ScalarType compute_dtype) {
  nn::BuildOptions options;
  options.device = device;
  options.compute_dtype = compute_dtype;
  options.master_dtype = compute_dtype == at::kDouble ? at::kDouble : at::kFloat;
  options.trainable = true;
  return options;
}

namespace {

/// LSQ and SEQ keep scales of the same shape: only the manifest tells one from the other.
void check_schemes(const quant::Registry& registry, const std::map<std::string, quant::Scheme>& stored,
                   const std::string& where) {
  for (const auto& module : registry.modules()) {
    const auto found = stored.find(module.name);
    quant::Scheme scheme = module.linear->scheme();
    if (found != stored.end()) scheme.init = found->second.init;  // how it started no longer matters
    if (found == stored.end() || !(found->second == scheme))
      throw UserError(cat(where, ": ", module.name, " was trained as ",
                          found == stored.end() ? "full precision" : quant::describe(found->second),
                          ", the config now says ", quant::describe(scheme),
                          found != stored.end() && quant::describe(found->second) == quant::describe(scheme)
                              ? " for other columns"
                              : "",
                          "; expected the quantization section that it was made with"));
  }
  if (stored.size() != registry.modules().size())
    throw UserError(cat(where, ": ", stored.size(), " layers are quantized there, the config quantizes ",
                        registry.modules().size()));
}

nn::LinearFactory linear_factory(const config::Config& config, quant::Registry& registry) {
  registry.allow_low_bit_products(config.train.low_bit_matmul == "auto");
  return config.quantization ? quant::quant_linear_factory(quant::Policy(*config.quantization), registry)
                             : nn::dense_linear_factory();
}

/// Where the quantizers' state comes from: `checkpoint`, or model.quantized, or nowhere.
std::optional<fs::path> stored_start(const config::Config& config, const std::optional<fs::path>& checkpoint) {
  if (checkpoint || config.model.quantized.empty()) return checkpoint;
  const fs::path start = config.model.quantized;
  if (!io::is_checkpoint(start))
    throw UserError(cat("model.quantized: expected a checkpoint of satin quantize (a folder with satin.json, such as ",
                        "RUN/checkpoints/step-0), found none at ", start.string()));
  const io::Manifest manifest = io::read_manifest(start);
  if (manifest.schemes.empty() || !manifest.quantizing)
    throw UserError(cat("model.quantized: ", start.string(),
                        " holds a model in full precision; satin quantize makes a quantized one"));
  return start;
}

}  // namespace

Student empty_student(const config::Config& config, const models::ModelConfig& model, const nn::BuildOptions& options) {
  Student student{std::make_unique<quant::Registry>(), nullptr};
  student.decoder = std::make_unique<models::Decoder>(model, linear_factory(config, *student.registry), options);
  return student;
}

Student build_student(const config::Config& config, const nn::BuildOptions& options,
                      const std::optional<fs::path>& checkpoint, const quant::Stage& stage) {
  Student student{std::make_unique<quant::Registry>(), nullptr};
  const nn::LinearFactory factory = linear_factory(config, *student.registry);
  if (const auto start = stored_start(config, checkpoint)) {
    student.decoder = io::load_pretrained(*start, factory, options);
    student.registry->check_all_rules_match();
    quant::enter(*student.registry, stage, /*keep_range=*/false);
    check_schemes(*student.registry, io::read_manifest(*start).schemes, start->string());
    return student;
  }
  if (config.model.init == "random") {
    student = empty_student(config, models::load_model_config(config.model.path), options);
    models::initialise_randomly(*student.decoder, config.train.seed);
  } else {
    student.decoder = io::load_pretrained(config.model.path, factory, options);
  }
  quant::enter(*student.registry, stage, /*keep_range=*/false);
  if (options.device.is_meta())
    student.registry->check_all_rules_match();
  else
    quant::initialise_from_weights(*student.registry);
  return student;
}

const std::string& teacher_path(const config::Config& config) {
  return config.teacher.path.empty() ? config.model.path : config.teacher.path;
}

std::unique_ptr<models::Decoder> build_teacher(const config::Config& config, const nn::BuildOptions& student_options,
                                               const models::ModelConfig& student) {
  const std::string& path = teacher_path(config);
  nn::BuildOptions options = student_options;
  options.master_dtype = options.compute_dtype;
  options.trainable = false;
  const exporting::ShippedModel model = exporting::open_model(path);
  if (model.config.vocab_size != student.vocab_size)
    throw UserError(cat("teacher.path: ", path, " has a vocabulary of ", model.config.vocab_size, ", the student of ",
                        student.vocab_size, "; logits can only be distilled between models with the same tokenizer"));
  check_hidden_states(config, student, model.config);
  return exporting::build_decoder(model, options);
}

bool distils(const config::Loss& loss) {
  return loss.kd.weight > 0 || loss.smoothness.weight > 0 || loss.hidden.weight > 0;
}

void check_hidden_states(const config::Config& config, const models::ModelConfig& student,
                         const models::ModelConfig& teacher) {
  if (config.loss.hidden.weight == 0 ||
      (student.num_layers == teacher.num_layers && student.hidden_size == teacher.hidden_size))
    return;
  throw UserError(
      cat("loss.hidden: expected a teacher whose hidden states can be compared with the student's; the "
          "student (model.path: ",
          config.model.path, ") has ", student.num_layers, " layers of hidden size ", student.hidden_size,
          ", the teacher (teacher.path: ", teacher_path(config), ") ", teacher.num_layers, " of ", teacher.hidden_size,
          "; set loss.hidden.weight to 0, or give another teacher.path"));
}

config::Neighbourhood effective_neighbourhood(const config::Loss& loss) {
  config::Neighbourhood neighbourhood = loss.neighbourhood;
  if (!distils(loss)) neighbourhood.rate = 0;
  if (neighbourhood.placement == "branch") neighbourhood.depth = 1;
  return neighbourhood;
}

void check_exports(const config::Config& config, const Student& student) {
  std::vector<exporting::QuantizedLayer> layers;
  for (const auto& module : student.registry->modules())
    layers.push_back({module.name, module.scheme.stored(), module.linear->out_features(),
                      module.linear->master_weight().size(1),
                      student.decoder->parameters().find(module.name + ".bias") != nullptr});
  at::ScalarType dtype = exporting::shipped_dtype(student.decoder->config());
  if (!layers.empty()) dtype = quant::storage_dtype(layers.front().scheme.dequant_dtype, at::kFloat);
  for (const auto& layer : layers)
    if (!config.export_.formats.empty() && layer.scheme.dequant_dtype != layers.front().scheme.dequant_dtype)
      throw UserError(cat("quantization: ", layer.name, " and ", layers.front().name,
                          " have different scale_dtype; exports hold one dtype a model"));
  if (config.quantization && config.quantization->kv_cache != "none" && !config.export_.formats.empty())
    log_warning(cat("exports do not say that keys and values were rounded to ", config.quantization->kv_cache,
                    " in training: ask for it where they run (satin eval and generate: --kv-cache)"));
  for (const auto& name : config.export_.formats) {
    const exporting::Format& format = exporting::format(name);
    exporting::check_exact(format, layers, dtype);
    for (const auto& layer : layers)
      if (const std::string asked = format.packs(layer.name) ? format.checked_at_the_end(layer.scheme) : "";
          !asked.empty()) {
        log_warning(cat("export.formats: ", name, ", when training has ended: ", asked));
        break;
      }
  }
}

report::ModelSize model_size(const models::Decoder& decoder) {
  report::ModelSize size{0, decoder.config().num_layers, decoder.config().num_heads * decoder.config().head_dim};
  for (const auto& parameter : decoder.parameters().all())
    if (parameter.role == nn::Role::kWeight ||
        (parameter.role == nn::Role::kEmbedding && decoder.config().tied_embeddings))
      size.matmul_parameters += c10::multiply_integers(parameter.full_shape);
  return size;
}

io::CheckpointContents checkpoint_contents(const config::Config& config, const Student& student) {
  io::CheckpointContents contents;
  contents.manifest.state = nlohmann::json::object();
  for (const auto& module : student.registry->modules())
    contents.manifest.schemes[module.name] = module.linear->scheme();
  const auto& modules = student.registry->modules();
  contents.manifest.quantizing = modules.empty() || modules.front().linear->enabled();
  if (config.quantization) contents.manifest.kv_cache = config.quantization->kv_cache;
  for (const auto& parameter : student.decoder->parameters().all())
    contents.model.push_back({parameter.name, parameter.value.detach(), parameter.full_shape, parameter.first_row});
  contents.config_yaml = config::dump(config);
  contents.model_files = config.model.path;
  return contents;
}

std::vector<io::CheckpointTensor> checkpoint_state(const optim::AdamW& optimizer, const nn::ParameterStore& store) {
  std::vector<io::CheckpointTensor> tensors;
  for (auto& [name, tensor] : optimizer.state()) {
    const nn::Parameter* parameter = store.find(name.substr(0, name.rfind('.')));
    SATIN_CHECK(parameter, "optimizer state ", name, " of no parameter");
    if (tensor.dim() > 0)  // the step counts of a split parameter are the same everywhere
      tensors.push_back({name, tensor, parameter->full_shape, parameter->first_row});
    else
      tensors.push_back({name, tensor});
  }
  return tensors;
}

void check_vocabulary(const tokenizer::Tokenizer& tokenizer, const models::ModelConfig& model,
                      const std::string& directory) {
  if (tokenizer.vocab_size() > model.vocab_size)
    throw UserError(cat(directory, ": tokenizer.json has ids up to ", tokenizer.vocab_size() - 1,
                        ", config.json's vocab_size is ", model.vocab_size,
                        "; the tokenizer belongs to another model"));
}

}  // namespace satin::train
