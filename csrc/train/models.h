// The two models of a run: the student, which is trained, and the teacher, which is not.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>

#include "config/schema.h"
#include "io/checkpoint.h"
#include "models/decoder.h"
#include "optim/adamw.h"
#include "quant/stages.h"
#include "report/throughput.h"
#include "tokenizer/tokenizer.h"

namespace satin::train {

struct Student {
  std::unique_ptr<quant::Registry> registry;  ///< its linear layers and how each is quantized
  std::unique_ptr<models::Decoder> decoder;   ///< points into the registry
};

/// A student of the configuration's layers without values: shapes, and where `options` say, memory.
Student empty_student(const config::Config& config, const models::ModelConfig& model, const nn::BuildOptions& options);

/// Builds the student from model.path (or at random) with its quantizers started from the weights; with stored state
/// from `checkpoint`, when there is one, or else from model.quantized. `stage`: of training; the end's when nothing is
/// said. Of what options.shard splits only its own rows are read and made. On the meta device files are checked for
/// names and shapes, and nothing has values. Throws UserError.
Student build_student(const config::Config& config, const nn::BuildOptions& options,
                      const std::optional<std::filesystem::path>& checkpoint, const quant::Stage& stage = {});

/// The teacher of the configuration, frozen, in the compute dtype. Throws UserError, also when its vocabulary is not
/// the student's.
std::unique_ptr<models::Decoder> build_teacher(const config::Config& config, const nn::BuildOptions& student_options,
                                               const models::ModelConfig& student);

/// The teacher's directory: teacher.path, or the student's own.
const std::string& teacher_path(const config::Config& config);

/// Throws UserError naming both models when loss.hidden is on and their layers or hidden sizes differ.
void check_hidden_states(const config::Config& config, const models::ModelConfig& student,
                         const models::ModelConfig& teacher);

/// Whether a loss compares student and teacher: only then are there neighbours to compare them at.
bool distils(const config::Loss& loss);
/// The neighbourhood that a run walks into: none when nothing is distilled.
config::Neighbourhood effective_neighbourhood(const config::Loss& loss);

/// Throws UserError when a configured export cannot hold a configured scheme exactly.
void check_exports(const config::Config& config, const Student& student);

/// What the count of floating-point operations needs of a model.
report::ModelSize model_size(const models::Decoder& decoder);

/// The student as a checkpoint's contents; the caller adds step, tokens, state and optimizer.
io::CheckpointContents checkpoint_contents(const config::Config& config, const Student& student);
/// The optimizer's state, of the same rows as the parameters.
std::vector<io::CheckpointTensor> checkpoint_state(const optim::AdamW& optimizer, const nn::ParameterStore& parameters);

/// Throws UserError when the tokenizer has ids that the model has not.
void check_vocabulary(const tokenizer::Tokenizer& tokenizer, const models::ModelConfig& model,
                      const std::string& directory);

/// Options of a student on a device: fp32 masters (fp64 when compute is fp64), trainable.
nn::BuildOptions student_options(at::Device device, at::ScalarType compute_dtype);

}  // namespace satin::train
