// Collectives on lists of matrices that ranks own by rows, and sums of lists: each one message.
//
// Rank r of W owns rows [r c, min((r + 1) c, n)) of a matrix of n rows, c = ceil(n / W) (nn::rows_of).
#pragma once
#include <vector>

#include "dist/communicator.h"

namespace satin::dist {

/// Every rank's rows -> whole matrices. One dtype and device.
class RowGather {
 public:
  RowGather() = default;
  /// Starts. parts[i]: this rank's rows of matrix i, which has num_rows[i] of them; not to be written to before
  /// finish().
  RowGather(Communicator& group, const std::vector<at::Tensor>& parts, std::vector<int64_t> num_rows);
  /// The whole matrices, in new memory.
  std::vector<at::Tensor> finish();

 private:
  std::vector<at::Tensor> wholes_;
  Pending pending_;
};

/// Sums over ranks of whole matrices -> this rank's rows of them.
class RowReduce {
 public:
  RowReduce() = default;
  /// Starts; sums are made in `dtype`. The matrices may be released at once, but not written to before finish().
  RowReduce(Communicator& group, const std::vector<at::Tensor>& wholes, at::ScalarType dtype);
  /// This rank's rows of the sums, in `dtype`.
  std::vector<at::Tensor> finish();

 private:
  std::vector<std::vector<int64_t>> shapes_;  ///< of this rank's rows
  std::vector<int64_t> chunks_;
  at::Tensor mine_;  ///< [sum of chunks]
  Pending pending_;
};

/// Copies of another dtype, in few kernels; or the tensors themselves when all are of it.
std::vector<at::Tensor> all_as(const std::vector<at::Tensor>& tensors, at::ScalarType dtype);

/// Sums over ranks of tensors of any shape.
class ListReduce {
 public:
  ListReduce() = default;
  /// Starts; values are sent in `dtype` and sums rounded to it. Contiguous tensors become the sums where they are no
  /// narrower than that, one or long, else copies do.
  ListReduce(Communicator& group, const std::vector<at::Tensor>& tensors, at::ScalarType dtype);
  /// The sums, in the wider of the tensors' dtype and `dtype`.
  std::vector<at::Tensor> finish();

 private:
  std::vector<at::Tensor> sums_;
  Pending pending_;
};

}  // namespace satin::dist
