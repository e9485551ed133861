// Collectives of the GPUs of one host through their copy engines: of what is computed beside them no multiprocessor is
// taken but for a sum's additions and casts, a kernel or three a piece, and these wait for gaps where what is computed
// has a stream of high priority (ops/device.h). NCCL's kernels hold multiprocessors for as long as they send or wait
// for a late rank, and a matrix product whose blocks fill the GPU once then takes up to twice its time; and once one
// has run, every later kernel of the process starts .2 us later (measured on H200).
//
//   reduce_scatter   every rank pushes slice p into rank p's inbox; rank p adds up what lies there
//   all_gather       every rank lays its part into its outbox; the others pull it from there (broadcast: one rank)
//   all_reduce       both, piece by piece: slices are pushed, added up (of two ranks in place), laid out and pulled
//                    (Rabenseifner 2004)
//
// A window is the memory of a GPU that the others write and read: inbox, outbox and flags, which streams set and wait
// for without a kernel (cuStreamWriteValue32, cuStreamWaitValue32). A flag counts how often a thing was done, and
// whoever is to do the next waits for the count: windows are used again without a collective between.
#pragma once
#include <ATen/cuda/CUDAEvent.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <vector>

#include "dist/communicator.h"

namespace satin::dist {

class PeerCopies {
 public:
  /// Of tensors, sent at once: a copy of a large matrix's slice takes far longer than it takes to start, and the
  /// gradients of a block of a 1b model are one piece.
  static constexpr int64_t kPieceBytes = 128 << 20;

  /// Called by every rank of `group`, one a GPU. Null on all where one rank cannot reach another's memory (another
  /// host, a GPU hidden by CUDA_VISIBLE_DEVICES, no peer access) or SATIN_COPY_ENGINES=0 says no; rank 0 logs why.
  static std::unique_ptr<PeerCopies> make(Communicator& group, c10::Device device, int64_t piece_bytes = kPieceBytes);
  /// Gives the windows back, with the others.
  void close(Communicator& group);
  /// Where a rank is lost: what is under way goes on without the others, so that nothing waits for it for ever. Tensors
  /// are worthless from here on, and the windows stay until the process ends.
  void abandon();

  /// As of Communicator (sent_in: all_reduce_in); sums of bf16 and fp16 are in fp32, rounded once. Each starts behind
  /// what the current stream holds, on a stream of its own; the event follows its end.
  at::cuda::CUDAEvent all_reduce(const std::vector<at::Tensor>& tensors, at::ScalarType sent_in);
  at::cuda::CUDAEvent all_gather(const std::vector<Sliced>& wholes, const std::vector<at::Tensor>& parts);
  at::cuda::CUDAEvent reduce_scatter(const at::Tensor& part, const std::vector<Sliced>& wholes);
  at::cuda::CUDAEvent broadcast(const at::Tensor& tensor, int64_t root);

 private:
  /// Things that are counted, each by one flag for each rank that does them.
  enum Flag { kSent, kTaken, kLaidOut, kPulled, kNumFlags };
  /// A part of a tensor in a piece, in `size` slices; slice p is rank p's to add up.
  struct Fragment {
    char* data;
    int64_t numel, slice;  ///< elements; of a slice (the last ones may have fewer)
    int64_t offset;        ///< bytes, of its slice in a slot
  };

  PeerCopies(int64_t rank, int64_t size, c10::Device device, int64_t piece_bytes);
  /// What the others need to open this rank's window.
  std::string open_own();
  void open_others(const std::vector<std::string>& cards);
  template <class Function>
  at::cuda::CUDAEvent on_stream(const Function& function);
  /// Contiguous, here, and of one dtype.
  void check(const std::vector<at::Tensor>& tensors) const;
  void check(const std::vector<Sliced>& wholes, const std::vector<at::Tensor>& others) const;
  /// On the stream, of contiguous tensors of one dtype.
  void reduce(const std::vector<at::Tensor>& tensors);
  void reduce_piece(const std::vector<Fragment>& piece, at::ScalarType dtype);
  /// The sum of all slots of the inbox.
  void add_up(char* sum, int64_t bytes, at::ScalarType dtype);

  at::Tensor view(char* at, int64_t numel, at::ScalarType dtype) const;
  char* inbox(int64_t owner, int64_t sender) const { return windows_[owner] + sender * slot_bytes_; }
  char* outbox(int64_t owner) const { return windows_[owner] + size_ * slot_bytes_; }
  CUdeviceptr flag(int64_t owner, Flag flag, int64_t setter) const;
  void copy(void* to, const void* from, int64_t bytes);
  void set_value(CUdeviceptr at, uint32_t value);
  void wait_value(CUdeviceptr at, uint32_t value);  ///< at least
  /// Waits until every other rank has done `flag` as often as `count`; sets one's own count for them.
  void wait_for(Flag flag, uint32_t count);
  void tell(Flag flag, uint32_t count);

  const int64_t rank_, size_;
  const int64_t slot_bytes_;  ///< of the outbox, and of a rank's slot of the inbox
  const c10::Device device_;
  cudaStream_t stream_ = nullptr;
  unsigned wait_flags_ = 0;
  std::vector<int64_t> others_;  ///< ranks; no two begin with the same
  std::vector<char*> windows_;   ///< of every rank, as this process sees them
  uint32_t num_pushes_ = 0, num_layouts_ = 0;
};

}  // namespace satin::dist
