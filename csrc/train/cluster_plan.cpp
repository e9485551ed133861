#include "train/cluster_plan.h"

#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "report/throughput.h"
#include "train/gradient_penalty.h"
#include "train/stored_teacher.h"

namespace satin::train {
namespace {

constexpr double kGiB = 1 << 30;

report::ModelSize size_of(const models::ModelConfig& c) {
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  const int64_t layer = c.hidden_size * (2 * q + 2 * kv + 3 * c.intermediate_size);
  return {c.num_layers * layer + c.vocab_size * c.hidden_size, c.num_layers, q};
}

report::ModelSize without_head(const models::ModelConfig& c) {
  report::ModelSize size = size_of(c);
  size.matmul_parameters -= c.vocab_size * c.hidden_size;
  return size;
}

bool fits(const MemoryEstimate& memory, const Job& job) {
  const auto total = static_cast<double>(memory.total_bytes());
  return job.device_memory_bytes == 0 || total <= kUsableMemory * static_cast<double>(job.device_memory_bytes);
}

MemoryEstimate memory_of(const config::Config& config, const models::ModelConfig* teacher, at::ScalarType compute_dtype,
                         at::Device device, const Layout& layout) {
  const Student shapes = student_shapes(config, compute_dtype, layout.shard());
  return estimate_memory(config, *shapes.decoder, teacher, compute_dtype, device, layout);
}

/// Of a strategy.
Layout layout_of(Strategy strategy, const config::Config& config, const models::ModelConfig* teacher,
                 at::ScalarType compute_dtype, at::Device device, const Job& job) {
  Layout layout{strategy, job.world_size, job.gpus_per_host};
  if (!teacher || !layout.gathers_blocks() || config.parallel.teacher == "whole") return layout;
  layout.split_teacher =
      config.parallel.teacher == "split" || !fits(memory_of(config, teacher, compute_dtype, device, layout), job);
  return layout;
}

Strategy first_that_fits(const std::function<bool(Strategy)>& fits) {
  for (const Strategy strategy : {Strategy::kDdp, Strategy::kZero2})
    if (fits(strategy)) return strategy;
  return Strategy::kFsdp;
}

const Plan& plan_of(const std::vector<Plan>& plans, Strategy strategy) {
  for (const Plan& plan : plans)
    if (plan.layout.strategy == strategy) return plan;
  throw InternalError(cat("no plan for ", strategy_name(strategy)));
}

Strategy chosen(const std::vector<Plan>& plans, const config::Config& config) {
  if (config.parallel.strategy != "auto") return strategy_of(config.parallel.strategy);
  return first_that_fits([&](Strategy strategy) { return plan_of(plans, strategy).fits; });
}

nlohmann::json time_json(const PredictedTime& time) {
  return {
      {"student_s", time.student_s}, {"teacher_s", time.teacher_s},   {"update_s", time.update_s},
      {"reduce_s", time.reduce_s},   {"gather_s", time.gather_s},     {"exposed_s", time.exposed_s},
      {"step_s", time.total_s()},    {"sent_bytes", time.sent_bytes}, {"tokens_per_second", time.tokens_per_second()}};
}

}  // namespace

Student student_shapes(const config::Config& config, at::ScalarType compute_dtype, const nn::RowShard& shard) {
  nn::BuildOptions options = student_options(at::kMeta, compute_dtype);
  options.shard = shard;
  Student student = empty_student(config, models::load_model_config(config.model.path), options);
  student.registry->check_all_rules_match();
  return student;
}

Workload workload_of(const config::Config& config, const Student& student, const models::ModelConfig* teacher,
                     at::ScalarType compute_dtype) {
  const models::ModelConfig& c = student.decoder->config();
  const int64_t length = config.train.sequence_length;
  Workload w;
  w.num_blocks = c.num_layers;
  w.compute_bytes = static_cast<double>(c10::elementSize(compute_dtype));
  w.master_bytes = w.compute_bytes == 8 ? 8 : 4;
  if (config.parallel.reduce_dtype != "auto") w.reduce_bytes = config.parallel.reduce_dtype == "bfloat16" ? 2 : 4;
  double code_bits = 0;
  for (const auto& module : student.registry->modules()) {
    if (!module.scheme.splits_by_rows()) continue;
    const at::Tensor& weight = module.linear->master_weight();
    const auto elements = static_cast<double>(weight.numel());
    w.held_elements += elements;
    code_bits += elements * module.scheme.stored().effective_bits(weight.size(0), weight.size(1));
  }
  if (w.held_elements > 0) w.code_bits = code_bits / w.held_elements;
  for (const nn::Parameter& parameter : student.decoder->parameters().all()) {
    const bool is_matrix = parameter.role == nn::Role::kWeight || parameter.role == nn::Role::kEmbedding;
    if (!is_quantizer(parameter.role))
      (is_matrix ? w.dense_elements : w.other_elements) += static_cast<double>(parameter.value.numel());
  }
  w.dense_elements -= w.held_elements;

  w.tokens_in_sequence = length;
  w.student_flops_per_token = report::forward_flops_per_token(model_size(*student.decoder), length);
  const config::Neighbourhood neighbourhood = effective_neighbourhood(config.loss);
  const bool branches = neighbourhood.rate > 0 && neighbourhood.placement == "branch";
  const double readings = branches ? 2 : 1;  // of the text, by each
  w.student_flops_per_token *= readings;
  if (config.train.activation_checkpointing) w.backward_forwards = 3;
  if (teacher) {
    w.teacher_elements = static_cast<double>(without_head(*teacher).matmul_parameters);
    w.teacher_forwards = 1;
    w.teacher_flops_per_token = readings * report::forward_flops_per_token(size_of(*teacher), length);
  }
  const bool draws = neighbourhood.rate > 0 && neighbourhood.random_share < 1 && config.teacher.cache.empty();
  if (draws &&
      neighbourhood.source != "random") {  // a forward a token of the walk, through the head only here and there
    const bool of_student = neighbourhood.source == "student";
    w.teacher_forwards += of_student ? 0 : neighbourhood.depth;
    w.teacher_flops_per_token +=
        static_cast<double>(neighbourhood.depth) *
        report::forward_flops_per_token(without_head(of_student || !teacher ? c : *teacher), length);
  }
  return w;
}

std::vector<Plan> plan_strategies(const config::Config& config, const models::ModelConfig* teacher,
                                  at::ScalarType compute_dtype, const Job& job) {
  check_hosts(job.world_size, job.gpus_per_host);
  share_of_step(config.train, job.world_size);  // for its error
  const Workload workload = workload_of(config, student_shapes(config, compute_dtype), teacher, compute_dtype);
  std::vector<Plan> plans;
  for (const Strategy strategy : kStrategies) {
    Plan plan;
    plan.layout = layout_of(strategy, config, teacher, compute_dtype, at::kCUDA, job);
    plan.memory = memory_of(config, teacher, compute_dtype, at::kCUDA, plan.layout);
    plan.fits = fits(plan.memory, job);
    plan.with_weights = predict_step(workload, config.train, plan.layout, job.cluster, Gathered::kWeights);
    plan.with_codes = predict_step(workload, config.train, plan.layout, job.cluster, Gathered::kCodes);
    plan.time = plan.layout.gathers_codes() ? plan.with_codes : plan.with_weights;
    plans.push_back(std::move(plan));
  }
  return plans;
}

Layout resolve_layout(const config::Config& config, const models::ModelConfig* teacher, at::ScalarType compute_dtype,
                      at::Device device, const Job& job) {
  const auto under = [&](Strategy strategy) {
    return layout_of(strategy, config, teacher, compute_dtype, device, job);
  };
  if (config.parallel.strategy != "auto") return under(strategy_of(config.parallel.strategy));
  return under(first_that_fits([&](Strategy strategy) {
    return fits(memory_of(config, teacher, compute_dtype, device, under(strategy)), job);
  }));
}

std::string plan_text(const std::vector<Plan>& plans, const config::Config& config, const Job& job) {
  std::string text;
  const auto row = [&](const std::string& name, const std::function<std::string(const Plan&)>& cell) {
    char field[64];
    std::snprintf(field, sizeof field, "  %-24s", name.c_str());
    text += field;
    for (const Plan& plan : plans) {
      std::snprintf(field, sizeof field, " %11s", cell(plan).c_str());
      text += field;
    }
    text += "\n";
  };
  const auto numbers = [&](const std::string& name, int decimals, const std::function<double(const Plan&)>& value) {
    row(name, [&](const Plan& plan) { return fixed(value(plan), decimals); });
  };
  const BatchShare share = share_of_step(config.train, job.world_size);
  const Layout layout{Strategy::kDdp, job.world_size, job.gpus_per_host};
  text += cat(job.world_size, " processes on ", layout.num_hosts(), layout.num_hosts() == 1 ? " host" : " hosts", ", ",
              share.sequences, share.sequences == 1 ? " sequence" : " sequences", " each in ", share.forwards,
              share.forwards == 1 ? " forward" : " forwards",
              plans.back().layout.num_hosts() > 1 ? "; zero and fsdp gather codes and scales" : "",
              "; a model, not a measurement", penalises(config.loss.lgr) ? ", of a step without loss.lgr\n" : "\n");
  row("GiB a GPU", [](const Plan& plan) { return strategy_name(plan.layout.strategy); });
  for (size_t i = 0; i < plans[0].memory.parts.size(); ++i)
    numbers(plans[0].memory.parts[i].first, 3,
            [&](const Plan& plan) { return static_cast<double>(plan.memory.parts[i].second) / kGiB; });
  numbers("total", 3, [](const Plan& plan) { return static_cast<double>(plan.memory.total_bytes()) / kGiB; });
  const std::string room = fixed(static_cast<double>(job.device_memory_bytes) / kGiB, 3);
  row(cat("fits ", room, " GiB"), [](const Plan& plan) { return plan.fits ? "yes" : "no"; });
  text += "ms a step\n";
  numbers("student", 2, [](const Plan& plan) { return 1e3 * plan.time.student_s; });
  numbers("teacher", 2, [](const Plan& plan) { return 1e3 * plan.time.teacher_s; });
  numbers("update", 2, [](const Plan& plan) { return 1e3 * plan.time.update_s; });
  numbers("exposed communication", 2, [](const Plan& plan) { return 1e3 * plan.time.exposed_s; });
  numbers("total", 2, [](const Plan& plan) { return 1e3 * plan.time.total_s(); });
  numbers("all communication", 2, [](const Plan& plan) { return 1e3 * (plan.time.reduce_s + plan.time.gather_s); });
  text += "tokens/s\n";
  const auto processes = static_cast<double>(job.world_size);
  numbers("all GPUs", 0, [](const Plan& plan) { return plan.time.tokens_per_second(); });
  numbers("a GPU", 0, [&](const Plan& plan) { return plan.time.tokens_per_second() / processes; });
  numbers("a GPU, gathering weights", 0,
          [&](const Plan& plan) { return plan.with_weights.tokens_per_second() / processes; });
  numbers("a GPU, gathering codes", 0,
          [&](const Plan& plan) { return plan.with_codes.tokens_per_second() / processes; });
  text += "GB sent by a GPU a step\n";
  numbers("gathering weights", 3, [](const Plan& plan) { return 1e-9 * plan.with_weights.sent_bytes; });
  numbers("gathering codes", 3, [](const Plan& plan) { return 1e-9 * plan.with_codes.sent_bytes; });

  const Strategy taken = chosen(plans, config);
  const std::string usable = cat(fixed(100 * kUsableMemory, 0), " % of ", room, " GiB");
  text += cat("parallel.strategy: ", config.parallel.strategy);
  if (config.parallel.strategy == "auto") text += cat(" takes ", strategy_name(taken));
  if (plan_of(plans, taken).layout.splits_teacher()) text += ", the teacher split too";
  if (!plan_of(plans, taken).fits)
    text += cat(", whose memory exceeds ", usable, ": lower train.micro_batch_size or train.sequence_length",
                config.parallel.strategy == "auto" ? "; ddp and zero2 do not fit either" : "");
  else if (config.parallel.strategy == "auto")
    text += cat(", the first of ddp, zero2, fsdp whose memory fits in ", usable);
  return text;
}

nlohmann::json plan_json(const std::vector<Plan>& plans, const config::Config& config, const Job& job) {
  const BatchShare share = share_of_step(config.train, job.world_size);
  nlohmann::json json = {{"world_size", job.world_size},
                         {"gpus_per_host", job.gpus_per_host},
                         {"device_memory_bytes", job.device_memory_bytes},
                         {"sequences", share.sequences},
                         {"forwards", share.forwards},
                         {"strategy", strategy_name(chosen(plans, config))},
                         {"strategies", nlohmann::json::array()}};
  for (const Plan& plan : plans) {
    nlohmann::json memory = nlohmann::json::object();
    for (const auto& [name, bytes] : plan.memory.parts) memory[name] = bytes;
    json["strategies"].push_back({{"strategy", strategy_name(plan.layout.strategy)},
                                  {"memory_bytes", memory},
                                  {"total_bytes", plan.memory.total_bytes()},
                                  {"fits", plan.fits},
                                  {"time", time_json(plan.time)},
                                  {"gathers", plan.layout.gathers_codes() ? "codes" : "weights"},
                                  {"gathering_weights", time_json(plan.with_weights)},
                                  {"gathering_codes", time_json(plan.with_codes)}});
  }
  return json;
}

}  // namespace satin::train
