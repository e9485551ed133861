// The offline teacher: what `satin cache-teacher` writes and training reads instead of running the teacher.
#pragma once
#include <filesystem>
#include <memory>

#include "config/schema.h"
#include "data/batch.h"
#include "data/teacher_cache.h"
#include "dist/communicator.h"
#include "ops/logit_losses.h"
#include "tokenizer/tokenizer.h"

namespace satin::train {

/// A checksum of a model directory's weights and config.json; 0 when there is no such directory.
uint32_t weights_checksum(const std::filesystem::path& directory);

/// The cache of teacher.cache; null when the configuration has none. Throws UserError when it is of another teacher,
/// tokenizer or text attention, of other copies than the configuration's (each difference by name), or holds too few
/// tokens a position for the configured losses.
std::shared_ptr<const data::TeacherCache> open_teacher_cache(const config::Config& config,
                                                             const tokenizer::Tokenizer& tokenizer, int64_t vocab_size);

/// Whether the losses read the teacher from the cache: teacher and student then meet on the clean text, or on the
/// perturbed copies that are stored.
bool losses_read_cache(const config::Config& config);
/// Whether training runs the teacher itself.
bool runs_teacher(const config::Config& config);

/// A batch's positions [B * T] as the losses take them, on `device` in `dtype`, with the best k of what is stored.
ops::StoredTopK stored_top_k(const data::StoredTeacher& stored, int64_t k, at::Device device, at::ScalarType dtype);

/// Fills in the copies that the configuration asks for, and how they are drawn.
void describe_copies(const config::Config& config, data::TeacherCacheDescription& description);

/// Fills teacher.cache for data.train: the teacher's next-token distributions at every position of every window, once,
/// or of each of its perturbed copies (teacher.copies).
/// Adds what an earlier call that was stopped left out. Called by every rank of a job: each reads the teacher for
/// shards of its own, and the cache's bytes are those of one process. Throws UserError, InterruptedError on a signal.
void cache_teacher(const config::Config& config, dist::Communicator& world);

}  // namespace satin::train
