// A token stream in windows: what every teacher-forced task on running text reads.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace satin::eval {

/// Non-overlapping windows of `sequence_length` tokens, tail dropped; a text shorter than one window is one short
/// window.
struct Windows {
  std::vector<int32_t> tokens;  ///< of all windows, in order
  int64_t sequence_length;      ///< as asked for
  int64_t length;               ///< tokens of each window
  int64_t count;
  bool is_short() const { return length < sequence_length; }

  /// Windows [first, first + number) as [number, length] int64 on the CPU.
  at::Tensor batch(int64_t first, int64_t number) const;
};

/// `limit`: at most so many windows (0: all). `task` is named in errors. Throws UserError when there are fewer than 2
/// tokens.
Windows cut_windows(const std::string& task, const std::vector<int32_t>& tokens, int64_t sequence_length,
                    int64_t limit);

}  // namespace satin::eval
