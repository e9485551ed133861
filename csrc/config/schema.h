// The configuration: one plain struct a section. Names are the YAML keys; defaults are here and nowhere else.
// Help, units and limits are in each struct's field table (fields.h), checks across keys in validate.cpp. No torch
// here.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace satin::config {

struct Model {
  std::string path = {};  ///< Hugging Face model directory (config.json, tokenizer.json, *.safetensors)
  std::string init =
      "pretrained";            ///< pretrained | random (config.json and tokenizer only; dense training from scratch)
  std::string quantized = {};  ///< a checkpoint of satin quantize (or train) that training starts from
  bool operator==(const Model&) const = default;
};

struct Teacher {
  std::string path = {};     ///< empty: the student's own full-precision weights
  std::string cache = {};    ///< directory from `satin cache-teacher`, read instead of running the teacher
  int64_t cache_top_k = 64;  ///< ids a token that `satin cache-teacher` stores
  int64_t copies = 0;        ///< perturbed copies of each window that it stores; 0: the clean text
  bool operator==(const Teacher&) const = default;
};

/// Neighbouring inputs of a layer whose weights have the same bits where columns differ.
inline constexpr int64_t kBitColumns = 128;

/// What one tensor's quantizer is; a rule of the policy.
struct QuantizationRule {
  std::string match = {};                 ///< glob over module names ("model.layers.*.mlp.*"); unused in `default`
  std::string method = "lsq_asymmetric";  ///< see fields.h
  double bits = 2;
  int64_t group_size = 64;                ///< weights a scale along the input dimension; -1: one a row, 0: one a tensor
  std::string scale_dtype = "bfloat16";   ///< bfloat16 | float16: scales are rounded to it before every forward
  std::string init = "mse";               ///< data (from extremes) | mse (clip search) | weighted_mse
  std::string activations = "none";       ///< none | int8 | int8_static | float8
  std::vector<int64_t> column_bits = {};  ///< of each kBitColumns inputs, at most `bits`; empty: all have `bits`
  bool operator==(const QuantizationRule&) const = default;
};

/// Codes of more bits than the rules say, at first.
struct HardeningStage {
  double bits = 8;
  double until = 0;  ///< fraction of training
  bool operator==(const HardeningStage&) const = default;
};

struct Quantization {
  QuantizationRule default_rule;            ///< YAML key: default
  std::vector<QuantizationRule> overrides;  ///< in order, the last match wins; unset keys inherit from `default`
  std::string overrides_from = {};          ///< a file with such a list, read before `overrides` (which then has it)
  std::string kv_cache = "none";            ///< none | int8 | int4
  int64_t fake_quant_after_n_steps = 0;
  std::vector<HardeningStage> hardening;
  double damping = 0;                  ///< of oscillations: 2 damping (w - Q(w)) is added to gradients
  int64_t calibration_sequences = 32;  ///< of train.sequence_length, where a rule needs them
  bool operator==(const Quantization&) const = default;
};

/// What `satin quantize` does; training ignores it.
struct Ptq {
  std::string method = "rtn";       ///< rtn | gptq | awq | lwc | block_ap
  std::string objective = "block";  ///< lwc: block (its output; block_ap always) | layer (second moments alone)
  double gradient_ratio = 0;        ///< LGP: weight of the gradient term against the forward term at the start; 0: off
  bool gradient_cosines = false;    ///< measure what rounding does to each layer's gradients
  std::string masters = "latent";   ///< latent | levels: where a later training starts each weight
  double damping = 0.01;            ///< gptq: added to the diagonal, as a share of its mean
  bool act_order = true;            ///< gptq: columns of large inputs first
  int64_t steps = 200;              ///< lwc by layer
  int64_t epochs = 10;              ///< by block: passes over the calibration sequences
  int64_t batch_size = 4;           ///< by block: sequences a step
  double weight_learning_rate = 0;  ///< block_ap; 0: by the number of updates (ptq/block_training.h)
  double scale_learning_rate = 1e-4;  ///< block_ap: scales and zero points
  double clip_learning_rate = 1e-2;   ///< lwc
  bool keep_on_host = false;          ///< activations between blocks
  bool operator==(const Ptq&) const = default;
};

struct CrossEntropy {
  double weight = 0;
  bool operator==(const CrossEntropy&) const = default;
};
struct Distillation {
  double weight = 1;
  double temperature = 1;
  std::string kind = "forward";  ///< forward KL(teacher || student) | reverse KL(student || teacher) | jsd | cakld
  double mix = 0.5;              ///< jsd: the teacher's share; cakld: weight of the reverse KL
  bool operator==(const Distillation&) const = default;
};
struct Smoothness {
  double weight = 0;
  int64_t top_k = 40;
  double temperature = 2;
  double start = 0.5;  ///< fraction of training after which it is on
  double ramp = 0;     ///< fraction of training over which its weight grows linearly
  bool operator==(const Smoothness&) const = default;
};
struct HiddenStates {
  double weight = 0;
  std::string layers = "all";  ///< all: the residual stream after each layer | last: after the last one
  bool operator==(const HiddenStates&) const = default;
};
struct Neighbourhood {
  double rate = 0.15;  ///< probability that a next token is replaced by a sampled neighbour
  double start = 0;    ///< fraction of training after which it is on
  double ramp = 0;     ///< fraction of training over which the rate grows linearly
  int64_t top_k = 40;
  double temperature = 4;
  int64_t depth = 2;               ///< tokens of a walk; a branch has one
  std::string source = "teacher";  ///< teacher | random (the control) | student
  double random_share = 0;         ///< of the replaced tokens: any of the vocabulary instead of the source's
  std::string placement = "text";  ///< text: in it | branch: beside it, as tokens that nothing else sees
  bool operator==(const Neighbourhood&) const = default;
};
struct GradientPenalty {
  double weight = 0;          ///< a2 of arXiv 2605.08894; 0: off, unless there is a ratio
  double gradient_ratio = 0;  ///< |penalty's gradient| / |losses' gradient| instead
  int64_t layer = 1;          ///< whose input the gradient is taken at
  double start = 0.5;         ///< fraction of training after which it is on
  double ramp = 0;            ///< fraction of training over which it grows linearly
  int64_t every_n_steps = 1;
  int64_t sequences = 0;  ///< of a step; 0: all
  double step = 1e-4;     ///< of the finite difference, relative to the layer's input
  bool operator==(const GradientPenalty&) const = default;
};
struct Loss {
  CrossEntropy ce;
  Distillation kd;
  Smoothness smoothness;
  HiddenStates hidden;
  Neighbourhood neighbourhood;
  GradientPenalty lgr;
  int64_t chunk_tokens = 0;  ///< tokens whose logits' gradients are in memory at a time; 0: as a budget allows
  bool operator==(const Loss&) const = default;
};

struct DataSource {
  std::string path = {};        ///< .jsonl | .txt | .tokens (from `satin tokenize`)
  std::string field = "text";   ///< JSONL field with the document; "messages" style chats: see `format`
  std::string format = "text";  ///< text | messages (loss on the assistant's answers only)
  std::string template_ = {};   ///< YAML key: template. "Question: {question}\nAnswer: {answer}" instead of a field
  std::string name = {};        ///< shown in tables; default: the file's stem
  double weight = 0;            ///< share of the tokens; 0: in proportion to the source's own tokens
  bool operator==(const DataSource&) const = default;
};
struct Data {
  std::vector<DataSource> train;
  std::vector<DataSource> valid;
  bool attention_across_documents = false;  ///< packed documents see (and are scored across) their borders
  bool shuffle = true;
  std::string cache_dir = {};  ///< where tokenised text is kept; empty: <output_dir>/cache
  bool operator==(const Data&) const = default;
};

/// What `satin allocate` does; training ignores it.
struct Allocate {
  double average_bits = 3;                        ///< of a weight in the decoder's layers, scales not counted
  std::vector<double> candidates = {2, 3, 4, 8};  ///< bits that a layer may have
  std::vector<DataSource> reasoning;              ///< texts whose answers count; none: perplexity alone
  std::string answer_after = "Answer:";           ///< the answer is what follows its first occurrence
  double reasoning_weight = 0.7;                  ///< beta: of the answers against perplexity
  int64_t samples = 64;                           ///< sequences of general text, and questions
  std::string sensitivity = "losses";             ///< losses | fisher | hessian
  bool columns = false;                           ///< other bits for some columns of a linear layer as well
  int64_t pareto_points = 7;                      ///< budgets whose allocations are measured for the report
  bool operator==(const Allocate&) const = default;
};

struct Train {
  uint64_t seed = 0;
  int64_t max_steps = 0;   ///< 0: from max_tokens
  int64_t max_tokens = 0;  ///< 0: from max_steps
  int64_t sequence_length = 1024;
  int64_t micro_batch_size = 8;  ///< sequences in one forward
  int64_t gradient_accumulation_steps = 1;
  bool activation_checkpointing = false;
  std::string output_dir = "runs/default";
  std::string device = "auto";         ///< auto | cpu | cuda
  std::string compute_dtype = "auto";  ///< auto (bfloat16 on CUDA, float32 on CPU) | float32 | bfloat16 | float64
  bool deterministic = false;
  std::string low_bit_matmul = "auto";  ///< auto | never
  bool operator==(const Train&) const = default;
};

struct Optimizer {
  double learning_rate = 5e-4;
  double scale_learning_rate = 1e-4;
  double zero_point_learning_rate = 2e-3;
  double clip_learning_rate = 5e-3;
  double weight_decay = 0;  ///< weights only: never norms, biases, embeddings, scales
  double beta1 = 0.9, beta2 = 0.95;
  double epsilon = 1e-8;
  double clip_grad_norm = 1;        ///< weights and quantizer parameters apart; 0: off
  std::string schedule = "cosine";  ///< cosine | linear | constant
  double warmup_ratio = 0.05;
  double min_learning_rate_ratio = 0;
  bool operator==(const Optimizer&) const = default;
};

struct Parallel {
  std::string strategy = "auto";      ///< auto | ddp | zero1 | zero2 | fsdp | hybrid
  std::string reduce_dtype = "auto";  ///< auto (the gradients' own) | float32 | bfloat16
  std::string teacher = "auto";       ///< auto (whole where it fits) | whole | split (with fsdp and hybrid)
  double timeout_s = 60;
  bool operator==(const Parallel&) const = default;
};
struct Checkpoint {
  int64_t every_n_steps = 0;  ///< 0: only at the end
  int64_t keep = 2;
  bool asynchronous = true;
  bool operator==(const Checkpoint&) const = default;
};
struct Eval {
  int64_t every_n_steps = 0;  ///< 0: only at the end
  int64_t sequence_length = 1024;
  int64_t limit = 0;  ///< windows a text; 0: all
  bool operator==(const Eval&) const = default;
};
struct Logging {
  int64_t every_n_steps = 10;
  int64_t quantizers_every_n_steps = 100;
  bool tensorboard = true;
  bool operator==(const Logging&) const = default;
};
struct Export {
  std::vector<std::string> formats;  ///< hf | compressed-tensors | gptq | awq | bitnet | gguf
  bool operator==(const Export&) const = default;
};

struct Config {
  Model model;
  Teacher teacher;
  std::optional<Quantization> quantization;  ///< absent: dense training
  Ptq ptq;
  Allocate allocate;
  Loss loss;
  Data data;
  Train train;
  Optimizer optimizer;
  Parallel parallel;
  Checkpoint checkpoint;
  Eval eval;
  Logging logging;
  Export export_;  ///< YAML key: export
  bool operator==(const Config&) const = default;
};

}  // namespace satin::config
