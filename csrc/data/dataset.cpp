#include "data/dataset.h"

#include <ATen/ATen.h>

#include <cstring>

#include "core/error.h"
#include "core/random.h"
#include "data/text_source.h"
#include "data/tokenise.h"

namespace satin::data {

Dataset::Dataset(const std::vector<Source>& sources, const Options& options) : options_(options) {
  if (options_.sequence_length < 2)
    throw UserError(cat("sequence_length: expected at least 2, found ", options_.sequence_length));
  if (sources.empty()) throw UserError("data: there are no sources; list at least one file under data.train");
  for (const Source& source : sources) {
    auto file = std::make_shared<const TokenFile>(source.path);
    const uint64_t num_windows = file->num_tokens() / options_.sequence_length;
    if (num_windows == 0)
      throw UserError(cat("data source ", source.name, " (", source.path.string(), ") has ", file->num_tokens(),
                          " tokens, fewer than one window of sequence_length ", options_.sequence_length,
                          "; give it more text or lower train.sequence_length"));
    sources_.push_back({source.name, source.weight, std::move(file), num_windows});
  }
  sampler();  // reports wrong weights now
}

Sampler Dataset::sampler() const {
  std::vector<Sampler::Source> shapes;
  uint64_t checksum = counter_hash({static_cast<uint64_t>(options_.sequence_length), options_.shuffle, options_.seed});
  for (const OpenSource& source : sources_) {
    shapes.push_back({source.num_windows, source.weight});
    uint64_t weight_bits;
    std::memcpy(&weight_bits, &source.weight, sizeof weight_bits);
    checksum = counter_hash({checksum, source.file->header().header_crc, weight_bits});
  }
  return Sampler(std::move(shapes), {options_.seed, options_.shuffle, static_cast<uint32_t>(checksum)});
}

uint64_t Dataset::num_windows() const {
  uint64_t sum = 0;
  for (const OpenSource& source : sources_) sum += source.num_windows;
  return sum;
}

uint32_t Dataset::windows_checksum() const {
  uint64_t checksum = counter_hash({static_cast<uint64_t>(options_.sequence_length)});
  for (const OpenSource& source : sources_) checksum = counter_hash({checksum, source.file->header().header_crc});
  return static_cast<uint32_t>(checksum);
}

uint64_t Dataset::window_index(size_t source, uint64_t window) const {
  for (size_t s = 0; s < source; ++s) window += sources_[s].num_windows;
  return window;
}

Sample Dataset::sample_at(uint64_t window_index) const {
  uint32_t source = 0;
  uint64_t window = window_index;
  while (window >= sources_[source].num_windows) window -= sources_[source++].num_windows;
  return {window_index, source, window, 0};
}

void Dataset::attach(std::shared_ptr<const TeacherCache> cache) {
  TeacherCacheDescription wanted = cache->description();
  wanted.data_checksum = windows_checksum();
  wanted.num_windows = num_windows();
  wanted.sequence_length = options_.sequence_length;
  wanted.attention_across_documents = options_.attention_across_documents;
  check_fits(*cache, wanted);
  teacher_ = std::move(cache);
}

namespace {

struct StoredText {
  uint64_t window, copy;
};

/// Their stored rows as tensors.
StoredTeacher stored_rows(const TeacherCache& cache, const std::vector<StoredText>& texts, bool pin_memory) {
  TeacherRows rows;
  for (const StoredText& text : texts) cache.read(text.window, rows, text.copy);
  const auto num_windows = static_cast<int64_t>(texts.size());
  const int64_t length = cache.description().sequence_length, k = cache.description().top_k;
  const auto tensor = [&]<class T>(const std::vector<T>& values, at::ScalarType type, at::IntArrayRef shape) {
    at::Tensor x = at::empty(shape, at::TensorOptions(type).pinned_memory(pin_memory));
    std::copy(values.begin(), values.end(), x.mutable_data_ptr<T>());
    return x;
  };
  StoredTeacher stored{tensor(rows.ids, at::kInt, {num_windows, length, k}),
                       tensor(rows.logits, at::kFloat, {num_windows, length, k}),
                       tensor(rows.log_total, at::kFloat, {num_windows, length}),
                       tensor(rows.log_rest, at::kFloat, {num_windows, length})};
  if (cache.description().copies > 0) {
    const std::vector<int64_t> tokens(rows.tokens.begin(), rows.tokens.end());
    stored.tokens = tensor(tokens, at::kLong, {num_windows, length});
  }
  return stored;
}

}  // namespace

Batch Dataset::read(const std::vector<Sample>& samples, bool pin_memory) const {
  SATIN_CHECK(!samples.empty());
  const auto num_samples = static_cast<int64_t>(samples.size());
  const int64_t length = options_.sequence_length;
  const auto empty = [&](at::ScalarType type) {
    return at::empty({num_samples, length}, at::TensorOptions(type).pinned_memory(pin_memory));
  };
  Batch batch;
  batch.tokens = empty(at::kLong);
  batch.loss_mask = empty(at::kBool);
  batch.document_starts = empty(at::kBool);
  if (!options_.attention_across_documents) batch.document_ids = empty(at::kLong);
  batch.epoch = samples[0].epoch;
  for (int64_t b = 0; b < num_samples; ++b) {
    batch.sample_ids.push_back(samples[b].id);
    read_window(samples[b], batch.tokens.mutable_data_ptr<int64_t>() + b * length,
                batch.loss_mask.mutable_data_ptr<bool>() + b * length,
                batch.document_ids.defined() ? batch.document_ids.mutable_data_ptr<int64_t>() + b * length : nullptr,
                batch.document_starts.mutable_data_ptr<bool>() + b * length);
  }
  if (teacher_) {
    const uint64_t copies = std::max<uint64_t>(1, teacher_->description().copies);
    std::vector<StoredText> texts;
    for (const Sample& sample : samples)
      texts.push_back({window_index(sample.source, sample.window), sample.epoch % copies});
    batch.teacher = stored_rows(*teacher_, texts, pin_memory);
  }
  return batch;
}

void Dataset::read_window(const Sample& sample, int64_t* tokens, bool* loss_mask, int64_t* document_ids,
                          bool* starts) const {
  const TokenFile& file = *sources_[sample.source].file;
  const auto length = static_cast<uint64_t>(options_.sequence_length);
  const uint64_t begin = sample.window * length;
  file.read_tokens(begin, {tokens, length});

  std::fill(starts, starts + length, false);
  for (uint64_t d = file.first_document_from(begin); d < file.num_documents(); ++d) {
    const uint64_t start = file.document_start(d);
    if (start < begin || start >= begin + length) break;  // below begin: an unverified file may lie
    starts[start - begin] = true;
  }
  for (uint64_t t = 0; t + 1 < length; ++t) loss_mask[t] = options_.attention_across_documents || !starts[t + 1];
  loss_mask[length - 1] = false;
  if (file.has_loss_mask())
    for (uint64_t t = 0; t + 1 < length; ++t) loss_mask[t] = loss_mask[t] && file.scored(begin + t + 1);
  if (!document_ids) return;
  int64_t document = 0;
  for (uint64_t t = 0; t < length; ++t) document_ids[t] = document += starts[t];
}

std::vector<std::string> Dataset::mixture_summary(uint64_t num_samples) const {
  std::vector<std::string> lines;
  const Sampler shares = sampler();
  for (size_t s = 0; s < sources_.size(); ++s) {
    const OpenSource& source = sources_[s];
    const double share = shares.share(s);
    lines.push_back(cat(source.name, ": ", source.file->num_documents(), " documents, ", source.file->num_tokens(),
                        " tokens, ", fixed(100 * share, 1), " % of the mixture, ",
                        fixed(share * num_samples / source.num_windows, 2), " epochs"));
  }
  return lines;
}

Dataset open_dataset(const std::vector<config::DataSource>& sources, const tokenizer::Tokenizer& tokenizer,
                     const std::filesystem::path& cache_dir, const Dataset::Options& options) {
  std::vector<Dataset::Source> files;
  for (const config::DataSource& source : sources)
    files.push_back({source_name(source), tokenise(source, tokenizer, cache_dir), source.weight});
  return Dataset(files, options);
}

}  // namespace satin::data
