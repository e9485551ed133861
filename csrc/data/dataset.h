// Training data: windows of sequence_length tokens from the concatenated documents of one or more token files.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "config/schema.h"
#include "data/batch.h"
#include "data/sampler.h"
#include "data/teacher_cache.h"
#include "data/token_file.h"
#include "tokenizer/tokenizer.h"

namespace satin::data {

class Dataset {
 public:
  struct Source {
    std::string name;
    std::filesystem::path path;  ///< of a token file
    double weight = 0;           ///< as config::DataSource::weight
  };
  struct Options {
    int64_t sequence_length = 1024;
    bool attention_across_documents = false;
    bool shuffle = true;
    uint64_t seed = 0;
  };
  /// Window w of a source is its tokens [w T, (w + 1) T); what is left at the end is dropped.
  /// Errors: UserError for a source shorter than one window, and as TokenFile and Sampler.
  Dataset(const std::vector<Source>& sources, const Options& options);

  /// A sampler at the start of these data.
  Sampler sampler() const;

  /// Reads windows as a batch (see batch.h). Position t is scored unless it is the last, token t + 1 starts a document
  /// (and attention does not cross documents), or the source's loss mask leaves token t + 1 out. document_ids count the
  /// starts in the window: tokens before the first have 0. Thread-safe.
  /// Errors: UserError when a token is outside the vocabulary.
  Batch read(const std::vector<Sample>& samples, bool pin_memory = false) const;

  size_t num_sources() const { return sources_.size(); }
  uint64_t num_windows() const;  ///< of all sources
  uint64_t num_windows(size_t source) const { return sources_[source].num_windows; }
  const TokenFile& file(size_t source) const { return *sources_[source].file; }
  const Options& options() const { return options_; }

  /// A number that stands for the windows: their text, length and order in the files. What a teacher cache is made of.
  uint32_t windows_checksum() const;
  /// Window w of source s among those of all sources.
  uint64_t window_index(size_t source, uint64_t window) const;
  /// Its inverse, as a sample of the first epoch whose id is the index.
  Sample sample_at(uint64_t window_index) const;
  /// From here on batches bring what the cache holds of them; of its copies, epoch mod copies of each window. Errors:
  /// UserError when it is not of these windows.
  void attach(std::shared_ptr<const TeacherCache> cache);
  bool has_stored_teacher() const { return teacher_ != nullptr; }

  /// One line a source for the log: name, documents, tokens, share, and how often a run of num_samples reads it.
  std::vector<std::string> mixture_summary(uint64_t num_samples) const;

 private:
  struct OpenSource {
    std::string name;
    double weight;
    std::shared_ptr<const TokenFile> file;
    uint64_t num_windows;
  };
  void read_window(const Sample& sample, int64_t* tokens, bool* loss_mask, int64_t* document_ids, bool* starts) const;

  std::vector<OpenSource> sources_;
  Options options_;
  std::shared_ptr<const TeacherCache> teacher_;
};

/// Tokenises what is not yet (into cache_dir) and opens the sources of `sources` (data.train, say).
/// Errors: UserError, also when there are no sources.
Dataset open_dataset(const std::vector<config::DataSource>& sources, const tokenizer::Tokenizer& tokenizer,
                     const std::filesystem::path& cache_dir, const Dataset::Options& options);

}  // namespace satin::data
