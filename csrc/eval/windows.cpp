#include "eval/windows.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace satin::eval {

at::Tensor Windows::batch(int64_t first, int64_t number) const {
  SATIN_CHECK(first >= 0 && number > 0 && first + number <= count, "windows ", first, " + ", number, " of ", count);
  at::Tensor ids = at::empty({number, length}, at::kLong);
  std::copy_n(tokens.begin() + first * length, number * length, ids.data_ptr<int64_t>());
  return ids;
}

Windows cut_windows(const std::string& task, const std::vector<int32_t>& tokens, int64_t sequence_length,
                    int64_t limit) {
  if (tokens.size() < 2) throw UserError(cat(task, " needs at least 2 tokens, the text has ", tokens.size()));
  if (sequence_length < 2) throw UserError(cat("--sequence-length: expected at least 2, found ", sequence_length));
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  const int64_t length = std::min(sequence_length, num_tokens), most = num_tokens / length;
  const int64_t count = limit > 0 ? std::min(limit, most) : most;
  return {{tokens.begin(), tokens.begin() + count * length}, sequence_length, length, count};
}

}  // namespace satin::eval
