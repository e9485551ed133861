#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "dist/in_order.h"
#include "dist/together.h"
#include "io/shared_directory.h"
#include "losses/head.h"
#include "ops/device.h"
#include "report/progress.h"
#include "train/models.h"
#include "train/neighbours.h"
#include "train/stored_teacher.h"
#include "train/training_data.h"

namespace satin::train {
namespace {

/// The stored part of rows of logits [n, V] in fp32, on the CPU.
struct Rows {
  at::Tensor ids, logits, log_total, log_rest;
};
Rows best_of(at::Tensor& logits, int64_t num_tokens, int64_t k) {
  const ops::TopK top = ops::top_k(logits.narrow(1, 0, num_tokens).contiguous(), k);
  const at::Tensor largest = top.values.narrow(1, 0, 1);
  const at::Tensor log_total = logits.logsumexp(1);
  logits.scatter_(1, top.ids, -std::numeric_limits<double>::infinity());
  const at::Tensor log_rest = logits.logsumexp(1);
  const auto host = [](const at::Tensor& x, at::ScalarType type) { return x.to(type).to(at::kCPU).contiguous(); };
  return {host(top.ids, at::kInt), host(top.values - largest, at::kFloat),
          host(log_total - largest.squeeze(1), at::kFloat), host(log_rest - log_total, at::kFloat)};
}

template <class T>
std::span<const T> values_of(const at::Tensor& x) {
  return {x.const_data_ptr<T>(), static_cast<size_t>(x.numel())};
}

/// The teacher's best k at every position of every window of hidden states [B, T, H], chunk by chunk.
class Reader {
 public:
  Reader(models::Decoder& teacher, int64_t num_tokens, int64_t k, int64_t chunk_tokens)
      : teacher_(teacher), num_tokens_(num_tokens), k_(k), chunk_tokens_(chunk_tokens) {}

  at::Tensor hidden(const at::Tensor& tokens, const at::Tensor& document_ids) {
    return teacher_.hidden(tokens, {.document_ids = document_ids});
  }
  /// One Rows a window.
  std::vector<Rows> best(const at::Tensor& hidden_BTH) {
    const int64_t length = hidden_BTH.size(1);
    const at::Tensor hidden = hidden_BTH.flatten(0, 1), head = teacher_.head().weight();
    const losses::HeadChunks chunks(chunk_tokens_, hidden.size(0), head.size(0), hidden.scalar_type(), hidden.device());
    const int64_t step = std::max<int64_t>(1, chunks.logits / length) * length;  // whole windows
    std::vector<Rows> windows;
    for (int64_t row = 0; row < hidden.size(0); row += step) {
      at::Tensor logits = losses::head_logits(hidden.narrow(0, row, std::min(step, hidden.size(0) - row)), head);
      const Rows rows = best_of(logits, num_tokens_, k_);
      for (int64_t t = 0; t < rows.ids.size(0); t += length)
        windows.push_back({rows.ids.narrow(0, t, length), rows.logits.narrow(0, t, length),
                           rows.log_total.narrow(0, t, length), rows.log_rest.narrow(0, t, length)});
    }
    return windows;
  }
  losses::SourceStates states(const at::Tensor& hidden) { return {hidden, teacher_.head().weight()}; }

 private:
  models::Decoder& teacher_;
  int64_t num_tokens_, k_, chunk_tokens_;
};

void add(data::TeacherCacheWriter& writer, const Rows& rows, std::span<const int32_t> tokens = {}) {
  writer.add(values_of<int32_t>(rows.ids), values_of<float>(rows.logits), values_of<float>(rows.log_total),
             values_of<float>(rows.log_rest), tokens);
}

/// Copy c of window w has the draws of sample c * num_windows + w.
void add_copies(data::TeacherCacheWriter& writer, Reader& reader, const losses::Neighbourhood& neighbourhood,
                const data::Batch& batch, int64_t num_copies, uint64_t num_windows, at::Device device) {
  const at::Tensor clean = batch.tokens.to(device);
  at::Tensor at_clean_text;  // read once for all copies
  const losses::Source source = [&](const at::Tensor& tokens) {
    if (!at::equal(tokens, clean)) return reader.states(reader.hidden(tokens, batch.document_ids));
    if (!at_clean_text.defined()) at_clean_text = reader.hidden(tokens, batch.document_ids);
    return reader.states(at_clean_text);
  };
  std::vector<at::Tensor> tokens;         // by copy, [B, T] int32
  std::vector<std::vector<Rows>> copies;  // by copy and window
  for (int64_t c = 0; c < num_copies; ++c) {
    losses::CleanWindows windows{batch.tokens, batch.document_starts, batch.sample_ids};
    for (uint64_t& id : windows.sample_ids) id += static_cast<uint64_t>(c) * num_windows;
    const at::Tensor copy = neighbourhood.perturb(clean, windows, source);
    tokens.push_back(copy.to(at::kInt).cpu().contiguous());
    copies.push_back(reader.best(reader.hidden(copy, batch.document_ids)));
  }
  for (int64_t b = 0; b < batch.tokens.size(0); ++b)
    for (size_t c = 0; c < copies.size(); ++c)
      add(writer, copies[c][static_cast<size_t>(b)], values_of<int32_t>(tokens[c][b]));
}

/// Writes this rank's shards, batch by batch.
class Filler {
 public:
  Filler(const config::Config& config, data::TeacherCacheWriter& writer, const data::Dataset& dataset, Reader reader,
         const losses::Neighbourhood& neighbourhood, at::Device device)
      : config_(config),
        writer_(writer),
        dataset_(dataset),
        reader_(reader),
        neighbourhood_(neighbourhood),
        device_(device) {}

  /// Windows of one shard, so that batches do not depend on who has which shards, nor on where a call was stopped.
  void add_batch() {
    const uint64_t begin = writer_.next_window();
    const uint64_t end = std::min<uint64_t>(begin + config_.train.micro_batch_size, writer_.end_of_shard());
    std::vector<data::Sample> samples;
    for (uint64_t w = begin; w < end; ++w) samples.push_back(dataset_.sample_at(w));
    const data::Batch batch = dataset_.read(samples);
    if (config_.teacher.copies > 0)
      add_copies(writer_, reader_, neighbourhood_, batch, config_.teacher.copies, dataset_.num_windows(), device_);
    else
      for (const Rows& rows : reader_.best(reader_.hidden(batch.tokens, batch.document_ids))) add(writer_, rows);
  }

 private:
  const config::Config& config_;
  data::TeacherCacheWriter& writer_;
  const data::Dataset& dataset_;
  Reader reader_;
  const losses::Neighbourhood& neighbourhood_;
  at::Device device_;
};

/// Windows that are still to do, of all ranks, after `work` on each.
uint64_t windows_left(dist::Communicator& world, const data::TeacherCacheWriter& writer,
                      const std::function<void()>& work) {
  uint64_t left = 0;
  for (const std::string& of_rank : dist::gather_of(world, [&] {
         work();
         return std::to_string(writer.windows_left());
       }))
    left += std::stoull(of_rank);
  return left;
}

}  // namespace

void cache_teacher(const config::Config& config, dist::Communicator& world) {
  const at::NoGradGuard no_grad;
  const std::string& directory = config.teacher.cache;
  if (directory.empty())
    throw UserError("teacher.cache: expected the directory to fill, found nothing; set teacher.cache=DIR");
  const at::Device device = ops::resolve_device(config.train.device);
  const at::ScalarType compute_dtype = ops::resolve_compute_dtype(config.train.compute_dtype, device);
  ops::configure_numerics(config.train.deterministic);
  const std::string& path = teacher_path(config);
  const auto tokenizer = tokenizer::Tokenizer::load(config.model.path);
  const models::ModelConfig student = models::load_model_config(config.model.path);
  check_vocabulary(tokenizer, student, config.model.path);
  if (world.rank() == 0) {
    std::error_code ignored;  // the writer says what is wrong
    std::filesystem::create_directories(directory, ignored);
  }
  io::check_shared(directory, world, "teacher.cache");
  std::optional<data::Dataset> dataset;
  dist::first_then_others(world, [&] {  // the first tokenises what is not yet
    dataset.emplace(open_training_data(config, tokenizer, std::filesystem::path(directory) / "tokens"));
  });
  const auto num_tokens = static_cast<int64_t>(tokenizer.vocab_size());
  const int64_t k = std::min(config.teacher.cache_top_k, num_tokens);
  const uint64_t total = dataset->num_windows();
  data::TeacherCacheDescription description{.teacher = path,
                                            .teacher_checksum = weights_checksum(path),
                                            .tokenizer_fingerprint = tokenizer.fingerprint(),
                                            .data_checksum = dataset->windows_checksum(),
                                            .num_windows = total,
                                            .sequence_length = config.train.sequence_length,
                                            .top_k = k,
                                            .vocab_size = student.vocab_size,
                                            .attention_across_documents = config.data.attention_across_documents,
                                            .compute_dtype = c10::toString(compute_dtype)};
  describe_copies(config, description);
  std::optional<data::TeacherCacheWriter> writer;
  dist::first_then_others(world, [&] {  // the first writes the manifest
    writer.emplace(
        directory, description, data::TeacherCacheWriter::kShardBytes,
        data::TeacherCacheWriter::Share{static_cast<uint64_t>(world.rank()), static_cast<uint64_t>(world.size())});
  });
  const uint64_t missing = windows_left(world, *writer, [] {});
  if (missing < total) log_info(cat(directory, ": ", total - missing, " of ", total, " windows are there"));
  if (missing > 0) {
    std::unique_ptr<models::Decoder> teacher;
    dist::together(world, [&] { teacher = build_teacher(config, student_options(device, compute_dtype), student); });
    const losses::Neighbourhood neighbourhood(config.loss.neighbourhood, num_tokens, special_ids(tokenizer, student),
                                              config.train.seed, config.loss.chunk_tokens);
    Filler filler(config, *writer, *dataset, Reader(*teacher, num_tokens, k, config.loss.chunk_tokens), neighbourhood,
                  device);
    const double start_s = now_s();
    for (uint64_t left = missing; left > 0;) {
      left = windows_left(world, *writer, [&] {
        if (const int signal = interrupt_signal())
          throw InterruptedError(cat("stopped by signal ", signal, " with ", total - left, " of ", total,
                                     " windows; the same command goes on after the last complete shards"));
        if (writer->windows_left() > 0) filler.add_batch();
      });
      const double seconds = now_s() - start_s, done = static_cast<double>(missing - left);
      progress(cat("window ", total - left, "/", total, "  ",
                   report::count_text(done * static_cast<double>(config.train.sequence_length) / seconds),
                   " tokens/s  ETA ", report::duration_text(seconds / done * static_cast<double>(left))));
    }
    end_progress();
  }
  dist::on_first(world, [&] {
    writer->finish();
    const data::TeacherCache cache(directory);
    log_info(cat(directory, ": ", total, " windows of ", config.train.sequence_length, " tokens, ",
                 config.teacher.copies > 0 ? cat(config.teacher.copies, " perturbed copies of each, ") : "",
                 "the best ", k, " tokens a position, ", report::bytes_text(static_cast<int64_t>(cache.bytes()))));
  });
}

}  // namespace satin::train
