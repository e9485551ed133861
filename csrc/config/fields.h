// The field tables: for each struct of schema.h its YAML keys with limits and help. Loading, dumping, --help-config
// and validation walk these tables; keys are listed nowhere else.
#pragma once
#include <tuple>
#include <type_traits>

#include "config/schema.h"
#include "config/spec.h"

namespace satin::config {

template <class S, class T>
struct Field {
  const char* key;
  T S::*member;
  Spec spec;
};
template <class S, class T>
constexpr Field<S, T> field(const char* key, T S::*member, Spec spec) {
  return {key, member, spec};
}

/// The table of a struct; absent (nullptr) for plain values.
template <class S>
inline constexpr auto kFields = nullptr;

template <class T>
concept Section = !std::is_null_pointer_v<std::remove_const_t<decltype(kFields<T>)>>;

/// Calls visit(field) for each row of the table of S.
template <Section S, class Visit>
void for_each_field(Visit&& visit) {
  std::apply([&](const auto&... row) { (visit(row), ...); }, kFields<S>);
}

// clang-format off
template <>
inline constexpr auto kFields<Model> = std::tuple{
    field("path", &Model::path, {.help = "Hugging Face model directory on disk: config.json, tokenizer.json, *.safetensors", .unit = "directory", .path = true, .required = true, .known_as = "base_model | model_name_or_path | pretrained_model_name_or_path | input_model_filename"}),
    field("init", &Model::init, {.help = "Where weights start: the directory's safetensors, or random (dense training from config.json and tokenizer)", .one_of = "pretrained | random"}),
    field("quantized", &Model::quantized, {.help = "Checkpoint that training starts from: weights, scales and zero points as satin quantize left them, of the same model.path and quantization; empty: the quantizers' own start", .unit = "directory", .path = true}),
};

template <>
inline constexpr auto kFields<Teacher> = std::tuple{
    field("path", &Teacher::path, {.help = "Full-precision teacher with the same vocabulary; empty: the student's own weights before quantization", .unit = "directory", .path = true, .known_as = "teacher_model | teacher_model_path"}),
    field("cache", &Teacher::cache, {.help = "Written by satin cache-teacher, read instead of running the teacher: its neighbours; its losses too where neighbourhood.rate is 0 or it holds copies (kd: stored tokens, the rest as one bucket)", .unit = "directory", .path = true, .known_as = "offline_teacher | teacher_cache"}),
    field("cache_top_k", &Teacher::cache_top_k, {.help = "Best next tokens a position that satin cache-teacher stores: 4 bytes each (6 for a vocabulary over 65,536)", .unit = "tokens", .at_least = 1, .at_most = 512}),
    field("copies", &Teacher::copies, {.help = "Stores the teacher on this many perturbed copies of each window (loss.neighbourhood); epoch e then reads copy e mod this, without the teacher; 0: on the clean text", .unit = "copies", .at_least = 0, .at_most = 1024}),
};

template <>
inline constexpr auto kFields<QuantizationRule> = std::tuple{
    field("match", &QuantizationRule::match, {.help = "Layers that the rule is for: a glob over module names, such as model.layers.*.mlp.*; the last match wins", .unit = "glob", .required = true, .list_only = true}),
    field("method", &QuantizationRule::method, {.help = "Quantizer: scales from the data each step (minmax, BitNet b1.58), learned (LSQ, with a zero point; ParetoQ: seq, ternary, binary; OneBit), learned clipping (lwc), or none (full precision)", .one_of = "minmax_symmetric | minmax_asymmetric | lsq | lsq_asymmetric | seq | ternary | binary | bitnet | lwc | onebit | none", .known_as = "weight_dtype | quantizer"}),
    field("bits", &QuantizationRule::bits, {.help = "Weight precision; implied by seq (2), ternary and bitnet (1.58), binary and onebit (1), a whole number for the others", .unit = "bits", .at_least = 1, .at_most = 8, .known_as = "w_bits | weight_bits | wbits"}),
    field("column_bits", &QuantizationRule::column_bits, {.help = "Bits of the weights of each 128 inputs in order, where they differ (lsq, lsq_asymmetric; allocate.columns writes such rules); bits, the widest unless given, is what codes are stored in", .unit = "bits", .at_least = 2, .at_most = 8, .list_only = true}),
    field("group_size", &QuantizationRule::group_size, {.help = "Consecutive input weights that share one scale (a multiple of 8); -1: one scale per output channel; 0: one per tensor", .unit = "weights", .at_least = -1, .known_as = "groupsize | q_group_size"}),
    field("scale_dtype", &QuantizationRule::scale_dtype, {.help = "Stored type of scales; they are rounded to it in training, so that export changes nothing", .one_of = "bfloat16 | float16"}),
    field("init", &QuantizationRule::init, {.help = "First scales: from each group's extremes (data), or by a clip search for the least squared error (mse), errors weighted by each input's mean square (weighted_mse: learned scales of groups or rows)", .one_of = "data | mse | weighted_mse"}),
    field("activations", &QuantizationRule::activations, {.help = "The layer's inputs: 8-bit integers or e4m3 with a scale for each token, or 8-bit integers with one learned scale a layer (int8_static)", .one_of = "none | int8 | int8_static | float8", .known_as = "activation_dtype | a_bits | input_activations"}),
};

template <>
inline constexpr auto kFields<HardeningStage> = std::tuple{
    field("bits", &HardeningStage::bits, {.help = "Layers that will have fewer have this many; learned scales keep their range at the next stage, learning rates stay absolute", .unit = "bits", .at_least = 2, .at_most = 8}),
    field("until", &HardeningStage::until, {.help = "When the next stage begins, or the rules' own bits after the last", .unit = "fraction of training", .above = 0, .below = 1}),
};

template <>
inline constexpr auto kFields<Quantization> = std::tuple{
    field("default", &Quantization::default_rule, {.help = "Rule of every linear layer inside the decoder blocks"}),
    field("overrides", &Quantization::overrides, {.help = "Exceptions by layer name, in order; keys that a rule leaves out are taken from default", .known_as = "quant_cfg | rules"}),
    field("overrides_from", &Quantization::overrides_from, {.help = "File with a list of overrides (satin allocate writes one); overrides given here come after it", .unit = "file", .path = true}),
    field("kv_cache", &Quantization::kv_cache, {.help = "Keys and values of attention, rounded with a scale for each token and head, in training, evaluation and generation", .one_of = "none | int8 | int4", .known_as = "kv_cache_dtype | kv_bits"}),
    field("fake_quant_after_n_steps", &Quantization::fake_quant_after_n_steps, {.help = "Train in full precision first; scales are made anew when quantization begins", .unit = "steps", .at_least = 0, .known_as = "quantizer_warmup_steps"}),
    field("hardening", &Quantization::hardening, {.help = "Stages of more bits before the rules' own, such as 8 until 0.1, 4 until 0.3; integer grids only"}),
    field("damping", &Quantization::damping, {.help = "Oscillation damping: pulls each weight towards its level, by this times twice the distance in its gradient (not the LM head's)", .at_least = 0}),
    field("calibration_sequences", &Quantization::calibration_sequences, {.help = "Training sequences that are read first where init weighted_mse or int8_static needs to know the inputs", .unit = "sequences", .at_least = 1, .known_as = "num_calibration_samples"}),
};

template <>
inline constexpr auto kFields<Ptq> = std::tuple{
    field("method", &Ptq::method, {.help = "Rounding to nearest, GPTQ, AWQ-style scaling of inputs, learned clipping (OmniQuant), or blocks' weights and quantizers trained (EfficientQAT Block-AP)", .one_of = "rtn | gptq | awq | lwc | block_ap"}),
    field("objective", &Ptq::objective, {.help = "What lwc minimises: its block's output error (OmniQuant), or, faster, each layer's error under second moments of inputs and gradients, without data in the loop", .one_of = "block | layer"}),
    field("gradient_ratio", &Ptq::gradient_ratio, {.help = "LGP, of lwc and block_ap: weight of the error in gradients, as a multiple of what makes it equal to the error in outputs at the start; 0.1 to 10 is usual; 0: off", .unit = "ratio", .at_least = 0}),
    field("gradient_cosines", &Ptq::gradient_cosines, {.help = "Measure the cosine between each layer's gradients before and after, at the cost of one backward pass over the calibration text (of rtn too, which reads none otherwise)"}),
    field("masters", &Ptq::masters, {.help = "Weights that a later training starts from: as they were when rounded, or at their levels; codes are the same", .one_of = "latent | levels"}),
    field("damping", &Ptq::damping, {.help = "GPTQ: added to the diagonal of the second moments", .unit = "share of its mean", .above = 0, .known_as = "percdamp | damp_percent"}),
    field("act_order", &Ptq::act_order, {.help = "GPTQ: columns in the order of falling inputs, scales from the weights as they were; false: in their own order, each group's scales when it is reached", .known_as = "desc_act | actorder"}),
    field("steps", &Ptq::steps, {.help = "Updates of each layer's clipping, with objective layer", .unit = "steps", .at_least = 1}),
    field("epochs", &Ptq::epochs, {.help = "Passes of a block's training over the calibration sequences", .unit = "epochs", .at_least = 1}),
    field("batch_size", &Ptq::batch_size, {.help = "Sequences of one update of a block", .unit = "sequences", .at_least = 1}),
    field("weight_learning_rate", &Ptq::weight_learning_rate, {.help = "Block-AP: of weights; 0: what goes as far in this many updates as EfficientQAT's rates (2e-5 at 2 bits, 1e-5 above) in its 4096, at most 1e-3", .at_least = 0}),
    field("scale_learning_rate", &Ptq::scale_learning_rate, {.help = "Block-AP: of scales and zero points", .at_least = 0}),
    field("clip_learning_rate", &Ptq::clip_learning_rate, {.help = "lwc: of the clip factors' logits", .at_least = 0}),
    field("keep_on_host", &Ptq::keep_on_host, {.help = "Keep what lies between blocks in the host's memory: slower, for a small device"}),
};

template <>
inline constexpr auto kFields<CrossEntropy> = std::tuple{
    field("weight", &CrossEntropy::weight, {.help = "Weight of the next-token cross-entropy; needed for dense training", .at_least = 0, .known_as = "ce_weight"}),
};

template <>
inline constexpr auto kFields<Distillation> = std::tuple{
    field("weight", &Distillation::weight, {.help = "Weight of logit distillation from the teacher (multiplied by temperature^2)", .at_least = 0, .known_as = "kd_weight | alpha"}),
    field("temperature", &Distillation::temperature, {.help = "Softens both distributions; 1 compares the models as they are", .above = 0, .known_as = "kd_temperature"}),
    field("kind", &Distillation::kind, {.help = "forward: KL(teacher || student), covers all the teacher can say; reverse: KL(student || teacher), seeks its modes; jsd: generalised Jensen-Shannon (GKD); cakld: both directions, mixed (BitDistiller)", .one_of = "forward | reverse | jsd | cakld", .known_as = "criterion"}),
    field("mix", &Distillation::mix, {.help = "jsd: the teacher's share of the mean (GKD's beta); cakld: weight of the reverse direction (BitDistiller's gamma: the teacher's mean probability of the right token)", .at_least = 0, .at_most = 1, .known_as = "beta | gamma"}),
};

template <>
inline constexpr auto kFields<Smoothness> = std::tuple{
    field("weight", &Smoothness::weight, {.help = "Weight of the top-k KL to the temperature-smoothed teacher; 0.1 to 1 is usual beside cross-entropy", .at_least = 0}),
    field("top_k", &Smoothness::top_k, {.help = "Teacher's best tokens that are compared one by one; the rest is one bucket", .unit = "tokens", .at_least = 1}),
    field("temperature", &Smoothness::temperature, {.help = "Softens both distributions inside the top k", .above = 0}),
    field("start", &Smoothness::start, {.help = "When it is switched on", .unit = "fraction of training", .at_least = 0, .at_most = 1}),
    field("ramp", &Smoothness::ramp, {.help = "How long its weight then grows linearly to the full value; 0: at once", .unit = "fraction of training", .at_least = 0, .at_most = 1}),
};

template <>
inline constexpr auto kFields<HiddenStates> = std::tuple{
    field("weight", &HiddenStates::weight, {.help = "Weight of the squared distance between the directions of student's and teacher's hidden states (0 to 4 a token), the mean over tokens and layers; 0: off", .at_least = 0}),
    field("layers", &HiddenStates::layers, {.help = "Where they are compared: the residual stream after each layer, or after the last", .one_of = "all | last"}),
};

template <>
inline constexpr auto kFields<Neighbourhood> = std::tuple{
    field("rate", &Neighbourhood::rate, {.help = "Probability that a next token is replaced by a sampled neighbour, so that teacher and student meet just off the text; 0: off; acts through kd, smoothness and hidden", .unit = "probability", .at_least = 0, .at_most = 1, .known_as = "rho"}),
    field("start", &Neighbourhood::start, {.help = "When it is switched on; until then both models read the clean text", .unit = "fraction of training", .at_least = 0, .at_most = 1}),
    field("ramp", &Neighbourhood::ramp, {.help = "How long its rate then grows linearly to the full value; 0: at once", .unit = "fraction of training", .at_least = 0, .at_most = 1}),
    field("top_k", &Neighbourhood::top_k, {.help = "Neighbours are drawn from this many best next tokens", .unit = "tokens", .at_least = 1}),
    field("temperature", &Neighbourhood::temperature, {.help = "Sampling temperature of the draw; higher wanders further", .above = 0}),
    field("depth", &Neighbourhood::depth, {.help = "Tokens replaced in a row once a walk starts (branches have one)", .unit = "tokens", .at_least = 1}),
    field("source", &Neighbourhood::source, {.help = "Who proposes neighbours: the teacher, any token of the vocabulary (the control), or the student (on-policy)", .one_of = "teacher | random | student"}),
    field("random_share", &Neighbourhood::random_share, {.help = "Share of the replaced tokens that are any token of the vocabulary instead of the source's; 1 is source: random", .unit = "share", .at_least = 0, .at_most = 1}),
    field("placement", &Neighbourhood::placement, {.help = "Neighbours replace tokens of the text, or stand beside them as branch tokens of a context twice as long (both texts in one pass; rate 1: each position has one)", .one_of = "text | branch"}),
};

template <>
inline constexpr auto kFields<GradientPenalty> = std::tuple{
    field("weight", &GradientPenalty::weight, {.help = "Weight a2 of the penalty, which depends on sequence length and model; 0: off, or by gradient_ratio", .at_least = 0}),
    field("gradient_ratio", &GradientPenalty::gradient_ratio, {.help = "Instead of weight: the norm of the penalty's gradient over that of all losses, from which the weight follows as measured; 0.01 to 0.3 is usual; 0: off", .unit = "ratio", .at_least = 0, .below = 1}),
    field("layer", &GradientPenalty::layer, {.help = "Gradients of the cross-entropy with respect to this layer's input are penalised; 0 is the embedding", .unit = "layer", .at_least = 0}),
    field("start", &GradientPenalty::start, {.help = "When it is switched on", .unit = "fraction of training", .at_least = 0, .at_most = 1}),
    field("ramp", &GradientPenalty::ramp, {.help = "How long its weight or ratio then grows linearly to the full value; 0: at once", .unit = "fraction of training", .at_least = 0, .at_most = 1}),
    field("every_n_steps", &GradientPenalty::every_n_steps, {.help = "Applied on every n-th step only, to save its three fp32 passes; the weight is not multiplied by n", .unit = "steps", .at_least = 1}),
    field("sequences", &GradientPenalty::sequences, {.help = "Sequences of a step that it is computed on, the first ones; 0: all", .unit = "sequences", .at_least = 0}),
    field("step", &GradientPenalty::step, {.help = "Finite difference: root mean square of the shift over that of the layer's input", .above = 0, .below = 1}),
};

template <>
inline constexpr auto kFields<Loss> = std::tuple{
    field("ce", &Loss::ce, {.help = "Cross-entropy on the text", .known_as = "cross_entropy"}),
    field("kd", &Loss::kd, {.help = "Knowledge distillation: the teacher's whole next-token distribution", .known_as = "distillation | distill"}),
    field("smoothness", &Loss::smoothness, {.help = "Top-k KL at the text's own contexts"}),
    field("hidden", &Loss::hidden, {.help = "Distillation of hidden states (OneBit), from a teacher of the same layers and hidden size that is in memory", .known_as = "hidden_states | hidden_state | mse"}),
    field("neighbourhood", &Loss::neighbourhood, {.help = "Distillation on contexts around the text: the smoothness default"}),
    field("lgr", &Loss::lgr, {.help = "Penalty on the squared norm of the loss's gradient with respect to a layer's input, by finite differences (LGR, arXiv 2605.08894); off unless weight or gradient_ratio is given", .known_as = "gradient_penalty | gradient_regularization"}),
    field("chunk_tokens", &Loss::chunk_tokens, {.help = "Positions whose gradients of vocabulary logits are in memory at a time; lower saves memory, the result is the same; 0: as many as fit 896 MiB (32 MiB on a CPU)", .unit = "tokens", .at_least = 0}),
};

template <>
inline constexpr auto kFields<DataSource> = std::tuple{
    field("path", &DataSource::path, {.help = "Text: .jsonl (a document a line), .txt (one document) or .tokens (from satin tokenize)", .unit = "file", .path = true, .required = true, .shorthand = true}),
    field("field", &DataSource::field, {.help = "JSONL field that holds the document", .known_as = "column | text_column | text_field"}),
    field("format", &DataSource::format, {.help = "text: loss on every token; messages: chat turns {role, content}, loss on the assistant's answers only", .one_of = "text | messages", .known_as = "type"}),
    field("template", &DataSource::template_, {.help = "Document built from several JSONL fields, such as \"Question: {question}\\nAnswer: {answer}\"; replaces field", .unit = "text with {field}"}),
    field("name", &DataSource::name, {.help = "Label in tables and reports; empty: the file's name without extension"}),
    field("weight", &DataSource::weight, {.help = "Share of the training tokens relative to the other sources; 0 for all: in proportion to their sizes", .at_least = 0}),
};

template <>
inline constexpr auto kFields<Data> = std::tuple{
    field("train", &Data::train, {.help = "Texts to train on: a path, one source or a list", .known_as = "datasets | dataset | train_data"}),
    field("valid", &Data::valid, {.help = "Texts whose perplexity is reported: a path, one source or a list", .known_as = "validation | test_datasets | valid_data"}),
    field("attention_across_documents", &Data::attention_across_documents, {.help = "Let documents packed into one sequence see each other and be scored across their borders"}),
    field("shuffle", &Data::shuffle, {.help = "New order each epoch, a pure function of seed and epoch"}),
    field("cache_dir", &Data::cache_dir, {.help = "Where tokenised text is kept between runs; empty: <train.output_dir>/cache", .unit = "directory", .path = true, .known_as = "dataset_prepared_path"}),
};

template <>
inline constexpr auto kFields<Allocate> = std::tuple{
    field("average_bits", &Allocate::average_bits, {.help = "Budget of satin allocate: mean bits of a weight inside the decoder's layers, without scales", .unit = "bits", .at_least = 2, .at_most = 8}),
    field("candidates", &Allocate::candidates, {.help = "Bits that a layer may get", .unit = "bits", .at_least = 2, .at_most = 8}),
    field("reasoning", &Allocate::reasoning, {.help = "Texts of questions and answers whose answers' cross-entropy counts: a path, one source or a list; none: perplexity of data.train alone"}),
    field("answer_after", &Allocate::answer_after, {.help = "An answer is what follows the first occurrence of this in a document"}),
    field("reasoning_weight", &Allocate::reasoning_weight, {.help = "Weight of the answers in a layer's sensitivity; perplexity has the rest", .unit = "share", .at_least = 0, .at_most = 1}),
    field("sensitivity", &Allocate::sensitivity, {.help = "What a layer's rounding costs: losses measured with that layer alone rounded, or its squared error weighted by the curvature of the loss (fisher: squared gradients; hessian: traces)", .one_of = "losses | fisher | hessian"}),
    field("columns", &Allocate::columns, {.help = "Also gives some columns of a linear layer, 128 inputs at a time, a bit more and as many a bit less, where that lowers its outputs' error (TASA, SliM-LLM): columns.yaml beside allocation.yaml"}),
    field("pareto_points", &Allocate::pareto_points, {.help = "Budgets, from the fewest to the most bits, whose allocations are measured for the report's curve; 0: none", .at_least = 0}),
    field("samples", &Allocate::samples, {.help = "Sequences of data.train, and documents of reasoning, that are scored", .unit = "samples", .at_least = 1}),
};

template <>
inline constexpr auto kFields<Train> = std::tuple{
    field("seed", &Train::seed, {.help = "Every random draw follows from it: order of the data, neighbours, random weights"}),
    field("max_steps", &Train::max_steps, {.help = "Length of the run in optimizer steps; 0: train.max_tokens says it", .unit = "steps", .at_least = 0, .known_as = "max_steps_per_epoch | num_steps | iterations"}),
    field("max_tokens", &Train::max_tokens, {.help = "Length of the run in tokens seen; 0: train.max_steps says it", .unit = "tokens", .at_least = 0, .known_as = "epochs | num_epochs | num_train_epochs"}),
    field("sequence_length", &Train::sequence_length, {.help = "Tokens of one packed training sequence", .unit = "tokens", .at_least = 2, .known_as = "sequence_len | seq_len | seqlen | max_seq_len | model_max_length | block_size | context_length"}),
    field("micro_batch_size", &Train::micro_batch_size, {.help = "Sequences in one forward, at most, on each device; lower it when memory is short", .unit = "sequences", .at_least = 1, .known_as = "batch_size | per_device_train_batch_size"}),
    field("gradient_accumulation_steps", &Train::gradient_accumulation_steps, {.help = "Micro-batches per optimizer step: a step has this x micro_batch_size sequences, dealt out to the devices of a job", .unit = "micro-batches", .at_least = 1, .known_as = "grad_accum | accumulation_steps"}),
    field("activation_checkpointing", &Train::activation_checkpointing, {.help = "Keep the input of each decoder block alone and compute the block again in the backward: less memory, about a third more time; the result is the same", .known_as = "gradient_checkpointing | recompute_granularity"}),
    field("output_dir", &Train::output_dir, {.help = "Run directory: config.yaml, metrics.jsonl, checkpoints, exports, report.html; must be new or empty unless resuming", .unit = "directory", .path = true, .required = true}),
    field("device", &Train::device, {.help = "Where to train; auto: CUDA when there is one", .one_of = "auto | cpu | cuda"}),
    field("compute_dtype", &Train::compute_dtype, {.help = "Type of activations and products (master weights stay float32 or wider); auto: bfloat16 on CUDA, float32 on CPU", .one_of = "auto | float32 | bfloat16 | float64", .known_as = "dtype | bf16 | precision"}),
    field("deterministic", &Train::deterministic, {.help = "Only algorithms that repeat bit for bit on CUDA; slower"}),
    field("low_bit_matmul", &Train::low_bit_matmul, {.help = "auto: layers with activations: int8 multiply 8-bit codes with packed weights where kernels exist (Hopper, bfloat16, rows or groups of 128 or more); never: fake quantization", .one_of = "auto | never"}),
};

template <>
inline constexpr auto kFields<Optimizer> = std::tuple{
    field("learning_rate", &Optimizer::learning_rate, {.help = "Peak AdamW learning rate of the weights", .at_least = 0, .known_as = "lr"}),
    field("scale_learning_rate", &Optimizer::scale_learning_rate, {.help = "Peak learning rate of learned quantizer scales", .at_least = 0, .known_as = "quant_lr | scale_lr"}),
    field("zero_point_learning_rate", &Optimizer::zero_point_learning_rate, {.help = "Peak learning rate of learned zero points", .at_least = 0}),
    field("clip_learning_rate", &Optimizer::clip_learning_rate, {.help = "Peak learning rate of learned weight clipping", .at_least = 0}),
    field("weight_decay", &Optimizer::weight_decay, {.help = "Decoupled weight decay of matrices; never of norms, biases, embeddings, scales", .at_least = 0, .known_as = "wd"}),
    field("beta1", &Optimizer::beta1, {.help = "Decay of AdamW's mean of gradients", .at_least = 0, .below = 1, .known_as = "adam_beta1 | betas"}),
    field("beta2", &Optimizer::beta2, {.help = "Decay of AdamW's mean of squared gradients", .at_least = 0, .below = 1, .known_as = "adam_beta2"}),
    field("epsilon", &Optimizer::epsilon, {.help = "Added to AdamW's denominator", .above = 0, .known_as = "eps | adam_epsilon"}),
    field("clip_grad_norm", &Optimizer::clip_grad_norm, {.help = "Largest gradient norm, of weights and of quantizer parameters each; 0: no clipping", .at_least = 0, .known_as = "max_grad_norm | grad_clip"}),
    field("schedule", &Optimizer::schedule, {.help = "Shape of the learning rate after warm-up", .one_of = "cosine | linear | constant", .known_as = "lr_scheduler | lr_scheduler_type"}),
    field("warmup_ratio", &Optimizer::warmup_ratio, {.help = "Part of training over which the learning rate rises linearly from 0", .unit = "fraction of training", .at_least = 0, .at_most = 1, .known_as = "warmup_steps | num_warmup_steps"}),
    field("min_learning_rate_ratio", &Optimizer::min_learning_rate_ratio, {.help = "Last learning rate of cosine and linear", .unit = "fraction of the peak", .at_least = 0, .at_most = 1, .known_as = "min_lr"}),
};

template <>
inline constexpr auto kFields<Parallel> = std::tuple{
    field("strategy", &Parallel::strategy, {.help = "How processes share the student: each has all of it (ddp), or rows of it (zero1, zero2; fsdp: a block at a time; hybrid: inside a host); auto: the first of ddp, zero2, fsdp that fits", .one_of = "auto | ddp | zero1 | zero2 | fsdp | hybrid", .known_as = "fsdp_strategy | distributed"}),
    field("reduce_dtype", &Parallel::reduce_dtype, {.help = "Gradients are summed over processes in this dtype; auto: the one they come in", .one_of = "auto | float32 | bfloat16"}),
    field("teacher", &Parallel::teacher, {.help = "The teacher with fsdp and hybrid: whole on each process, or rows of it, gathered a block at a time; auto: whole where it fits", .one_of = "auto | whole | split"}),
    field("timeout_s", &Parallel::timeout_s, {.help = "A process that is dead or has not moved for so long, while others wait for it, ends the job", .unit = "s", .above = 0}),
};

template <>
inline constexpr auto kFields<Checkpoint> = std::tuple{
    field("every_n_steps", &Checkpoint::every_n_steps, {.help = "Save a resumable checkpoint this often; 0: only at the end (and when interrupted)", .unit = "steps", .at_least = 0, .known_as = "save_steps | save_every_n_steps"}),
    field("keep", &Checkpoint::keep, {.help = "Newest checkpoints kept; older ones are removed", .unit = "checkpoints", .at_least = 1, .known_as = "save_total_limit"}),
    field("asynchronous", &Checkpoint::asynchronous, {.help = "Write while training goes on, from a copy in host memory (of masters and optimizer state, split over the processes); false: training waits", .known_as = "async_save | dist_save_async"}),
};

template <>
inline constexpr auto kFields<Eval> = std::tuple{
    field("every_n_steps", &Eval::every_n_steps, {.help = "Measure perplexity on data.valid this often; 0: only at the end", .unit = "steps", .at_least = 0, .known_as = "eval_steps"}),
    field("sequence_length", &Eval::sequence_length, {.help = "Window of the perplexity protocol: non-overlapping windows of this length", .unit = "tokens", .at_least = 2}),
    field("limit", &Eval::limit, {.help = "Windows per text; 0: all", .unit = "windows", .at_least = 0}),
};

template <>
inline constexpr auto kFields<Logging> = std::tuple{
    field("every_n_steps", &Logging::every_n_steps, {.help = "Write losses, learning rate, gradient norm and speed to metrics.jsonl this often", .unit = "steps", .at_least = 1, .known_as = "logging_steps | log_every_n_steps | log_interval"}),
    field("quantizers_every_n_steps", &Logging::quantizers_every_n_steps, {.help = "Measure the quantizers (clipped weights, changed codes, drift of scales, use of levels) this often into metrics.jsonl and quantizers.jsonl; 0: never", .unit = "steps", .at_least = 0}),
    field("tensorboard", &Logging::tensorboard, {.help = "Write TensorBoard events beside metrics.jsonl", .known_as = "metric_logger | report_to"}),
};

template <>
inline constexpr auto kFields<Export> = std::tuple{
    field("formats", &Export::formats, {.help = "Written and verified when training ends: hf (dense), compressed-tensors (packed), gptq, awq (4 bits), bitnet (three levels, int8 activations), gguf (one file, for llama.cpp)", .one_of = "hf | compressed-tensors | gptq | awq | bitnet | gguf"}),
};

template <>
inline constexpr auto kFields<Config> = std::tuple{
    field("model", &Config::model, {.help = "The model to train or quantize"}),
    field("teacher", &Config::teacher, {.help = "The full-precision model that is imitated"}),
    field("quantization", &Config::quantization, {.help = "How weights are quantized; the section absent (or none): dense training", .known_as = "qat | quantizer"}),
    field("loss", &Config::loss, {.help = "What is minimised: the weighted sum of the losses below"}),
    field("data", &Config::data, {.help = "Texts"}),
    field("train", &Config::train, {.help = "Length, batch and place of the run", .known_as = "training"}),
    field("optimizer", &Config::optimizer, {.help = "AdamW and its schedule"}),
    field("parallel", &Config::parallel, {.help = "Several processes, one a GPU (satin train --gpus N, torchrun, srun, mpirun)", .known_as = "distributed | fsdp"}),
    field("checkpoint", &Config::checkpoint, {.help = "Saving and keeping"}),
    field("eval", &Config::eval, {.help = "Perplexity during training", .known_as = "evaluation"}),
    field("logging", &Config::logging, {.help = "Metrics"}),
    field("ptq", &Config::ptq, {.help = "Quantization without training (satin quantize), on quantization.calibration_sequences of data.train", .known_as = "post_training_quantization | calibration"}),
    field("allocate", &Config::allocate, {.help = "Bits of each decoder layer by what rounding it costs (satin allocate)", .known_as = "mixed_precision"}),
    field("export", &Config::export_, {.help = "Artefacts for other programs"}),
};
// clang-format on

}  // namespace satin::config
