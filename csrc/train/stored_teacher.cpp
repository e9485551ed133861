#include "train/stored_teacher.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "losses/neighbourhood.h"
#include "train/models.h"

namespace satin::train {
namespace fs = std::filesystem;

uint32_t weights_checksum(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.json" || name.ends_with(".safetensors")) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  uint32_t crc = 0;
  for (const fs::path& file : files) crc = crc32c(MappedFile(file).bytes(), crc);
  return crc;
}

bool losses_read_cache(const config::Config& config) {
  return !config.teacher.cache.empty() && distils(config.loss) &&
         (effective_neighbourhood(config.loss).rate == 0 || config.teacher.copies > 0);
}

void describe_copies(const config::Config& config, data::TeacherCacheDescription& description) {
  const config::Neighbourhood& n = config.loss.neighbourhood;
  description.copies = static_cast<uint64_t>(config.teacher.copies);
  description.neighbourhood = {n.rate, n.top_k, n.temperature, n.depth, n.source, n.random_share, config.train.seed};
}

bool runs_teacher(const config::Config& config) { return distils(config.loss) && !losses_read_cache(config); }

std::shared_ptr<const data::TeacherCache> open_teacher_cache(const config::Config& config,
                                                             const tokenizer::Tokenizer& tokenizer,
                                                             int64_t vocab_size) {
  const config::Loss& loss = config.loss;
  if (config.teacher.cache.empty() || !distils(loss)) return nullptr;
  auto cache = std::make_shared<const data::TeacherCache>(config.teacher.cache);
  const data::TeacherCacheDescription& cached = cache->description();
  data::TeacherCacheDescription wanted = cached;
  const std::string& path = teacher_path(config);
  if (const uint32_t checksum = weights_checksum(path))
    wanted.teacher_checksum = checksum;
  else
    log_warning(cat("teacher.path: ", path, " is not there; that ", config.teacher.cache,
                    " is of this teacher is not checked"));
  wanted.tokenizer_fingerprint = tokenizer.fingerprint();
  wanted.vocab_size = vocab_size;
  wanted.sequence_length = config.train.sequence_length;
  wanted.attention_across_documents = config.data.attention_across_documents;
  describe_copies(config, wanted);
  data::check_fits(*cache, wanted);
  const auto require_stored = [&](const char* key, int64_t needed) {
    if (needed > cached.top_k)
      throw UserError(cat(key, ": ", needed, ", but teacher.cache holds ", cached.top_k,
                          " tokens a position: lower it, or make a cache with teacher.cache_top_k=", needed));
  };
  const config::Neighbourhood neighbourhood = effective_neighbourhood(loss);
  if (cached.copies == 0 && losses::draws_from(neighbourhood, "teacher"))
    require_stored("loss.neighbourhood.top_k", neighbourhood.top_k);
  if (losses_read_cache(config)) {
    if (loss.smoothness.weight > 0) require_stored("loss.smoothness.top_k", loss.smoothness.top_k);
    if (loss.kd.weight > 0 && (loss.kd.kind != "forward" || loss.kd.temperature != 1))
      throw UserError(
          cat("loss.kd: a teacher.cache gives the forward KL at temperature 1 (its stored tokens, and one "
              "bucket for the rest), found ",
              loss.kd.kind, " at ", loss.kd.temperature,
              "; set kind: forward and temperature: 1, or remove teacher.cache"));
    log_info(cat("teacher: from ", config.teacher.cache, " (", cached.teacher, ", the best ", cached.top_k,
                 " tokens a position",
                 cached.copies > 0 ? cat(", ", cached.copies, " perturbed copies of each window, one an epoch") : "",
                 "); it is not in memory"));
  } else if (losses::draws_from(neighbourhood, "teacher")) {
    log_info(cat("neighbours: from ", config.teacher.cache, "; the teacher itself reads the perturbed text"));
  } else {
    log_warning(cat("teacher.cache is not used: neighbours come from the ",
                    losses::draws_from(neighbourhood, "student") ? "student" : "random",
                    " source, and the losses compare at perturbed text"));
    return nullptr;
  }
  return cache;
}

ops::StoredTopK stored_top_k(const data::StoredTeacher& stored, int64_t k, at::Device device, at::ScalarType dtype) {
  const auto on_device = [&](const at::Tensor& x) { return x.to(device, /*non_blocking=*/true); };
  const at::Tensor logits = on_device(stored.logits).flatten(0, 1).to(dtype);
  const at::Tensor log_total = on_device(stored.log_total).flatten().to(dtype);
  at::Tensor log_rest = on_device(stored.log_rest).flatten().to(dtype);
  const int64_t all = logits.size(1);
  SATIN_CHECK(k >= 1 && k <= all, k, " of ", all, " stored");
  if (k < all)  // what is left out joins the rest
    log_rest = at::logaddexp(log_rest, logits.narrow(1, k, all - k).logsumexp(1) - log_total);
  const at::Tensor best = logits.narrow(1, 0, k).contiguous();
  // ln P by the one of the two that keeps its digits.
  const at::Tensor log_mass =
      at::where(log_rest < std::log(0.5), at::log1p(-log_rest.exp()), best.logsumexp(1) - log_total);
  return {on_device(stored.ids).flatten(0, 1).narrow(1, 0, k).contiguous(), best, log_rest, log_mass};
}

}  // namespace satin::train
