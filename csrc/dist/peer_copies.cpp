#include "dist/peer_copies.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "core/error.h"
#include "core/log.h"
#include "dist/row_lists.h"
#include "dist/together.h"

namespace satin::dist {
namespace {

constexpr int64_t kAlignment = 16;
constexpr int64_t kFlagStride = 64;

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }
char* data_of(const at::Tensor& tensor) { return static_cast<char*>(tensor.data_ptr()); }
int64_t bytes_of(const at::Tensor& tensor) { return static_cast<int64_t>(tensor.nbytes()); }
int64_t slice_bytes(const Sliced& sliced) { return sliced.slice * static_cast<int64_t>(sliced.whole.element_size()); }
/// How many of the bytes of rank's slice from `offset` on lie in the whole.
int64_t within(const Sliced& sliced, int64_t rank, int64_t offset, int64_t bytes) {
  return std::clamp(bytes_of(sliced.whole) - rank * slice_bytes(sliced) - offset, int64_t{0}, bytes);
}
/// Of slices that lie one after the other, those in bytes [at, at + bytes): function(list index, offset in the slice
/// and in the piece, bytes).
template <class Function>
void for_slices(const std::vector<Sliced>& wholes, int64_t at, int64_t bytes, const Function& function) {
  int64_t begin = 0;
  for (size_t i = 0; i < wholes.size(); ++i) {
    const int64_t end = begin + slice_bytes(wholes[i]), from = std::max(begin, at), to = std::min(end, at + bytes);
    if (from < to) function(i, from - begin, from - at, to - from);
    begin = end;
  }
}

/// Of the running kernel of this host; what is not the same is on another host.
std::string host_id() {
  std::string id;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), id);
  return id;
}

/// What every rank tells the others.
struct Card {
  char host[64];
  cudaIpcMemHandle_t window;
};

void check_cuda(cudaError_t result, const std::string& what) {
  if (result == cudaSuccess) return;
  (void)cudaGetLastError();  // or the next call would report it again
  throw std::runtime_error(cat(what, ": ", cudaGetErrorString(result)));
}

/// cuStreamWriteValue32 or cuStreamWaitValue32, found at run time: the driver is not linked.
using StreamValue = CUresult (*)(CUstream, CUdeviceptr, cuuint32_t, unsigned);
StreamValue driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found), name);
  if (found != cudaDriverEntryPointSuccess) throw std::runtime_error(cat("the driver has no ", name));
  return reinterpret_cast<StreamValue>(function);
}
void check_driver(CUresult result, const char* name) {
  SATIN_CHECK(result == CUDA_SUCCESS, name, ": CUDA driver error ", static_cast<int>(result));
}

}  // namespace

PeerCopies::PeerCopies(int64_t rank, int64_t size, c10::Device device, int64_t piece_bytes)
    : rank_(rank),
      size_(size),
      slot_bytes_(piece_bytes / size / kAlignment * kAlignment),
      device_(device),
      windows_(static_cast<size_t>(size)) {
  for (int64_t i = 1; i < size; ++i) others_.push_back((rank + i) % size);
}

std::unique_ptr<PeerCopies> PeerCopies::make(Communicator& group, c10::Device device, int64_t piece_bytes) {
  const c10::cuda::CUDAGuard guard(device);
  std::unique_ptr<PeerCopies> copies(new PeerCopies(group.rank(), group.size(), device, piece_bytes));
  std::string problem;
  try {
    const std::vector<std::string> cards = gather_of(group, [&] { return copies->open_own(); });
    together(group, [&] { copies->open_others(cards); });
  } catch (const PeerError&) {
    throw;
  } catch (const std::exception& error) {  // the same on every rank
    problem = error.what();
  }
  const std::string reach = cat("collectives of ", group.size(), " GPUs go ");
  if (problem.empty()) {
    if (group.rank() == 0) log_info(reach + "through their copy engines");
    return copies;
  }
  copies->close(group);
  if (group.rank() == 0) log_info(cat(reach, "over NCCL: ", problem));
  return nullptr;
}

std::string PeerCopies::open_own() {
  const char* const setting = std::getenv("SATIN_COPY_ENGINES");
  if (setting && std::strcmp(setting, "0") == 0) throw std::runtime_error("SATIN_COPY_ENGINES=0");
  const int64_t bytes = (size_ + 1) * slot_bytes_ + kNumFlags * size_ * kFlagStride;
  void* window = nullptr;
  if (cudaMalloc(&window, bytes) != cudaSuccess) {
    (void)cudaGetLastError();
    c10::cuda::CUDACachingAllocator::emptyCache();
    check_cuda(cudaMalloc(&window, bytes), cat("no window of ", bytes, " bytes"));
  }
  windows_[rank_] = static_cast<char*>(window);
  check_cuda(cudaMemset(window, 0, bytes), "the window");
  check_cuda(cudaDeviceSynchronize(), "the window");
  // After a stream of torch's high priority (-3), before one of none.
  int least = 0, greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "a stream");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest < -1 ? -1 : least), "a stream");
  // Where remote writes may become visible in another order than they came, a wait has to flush them.
  int flushes = 0;
  check_cuda(cudaDeviceGetAttribute(&flushes, cudaDevAttrCanFlushRemoteWrites, device_.index()), "the device");
  wait_flags_ = CU_STREAM_WAIT_VALUE_GEQ | (flushes ? CU_STREAM_WAIT_VALUE_FLUSH : 0);
  set_value(flag(rank_, kSent, rank_), 0);  // these throw where streams cannot
  wait_value(flag(rank_, kSent, rank_), 0);
  Card card{};
  host_id().copy(card.host, sizeof card.host - 1);
  check_cuda(cudaIpcGetMemHandle(&card.window, window), "the window cannot be shared");
  return {reinterpret_cast<const char*>(&card), sizeof card};
}

void PeerCopies::open_others(const std::vector<std::string>& cards) {
  const std::string host = host_id();
  for (const int64_t peer : others_) {
    Card theirs;
    std::memcpy(&theirs, cards[peer].data(), sizeof theirs);
    if (host.empty() || host != theirs.host) throw std::runtime_error(cat("rank ", peer, " is on another host"));
    void* window = nullptr;
    check_cuda(cudaIpcOpenMemHandle(&window, theirs.window, cudaIpcMemLazyEnablePeerAccess),
               cat("the window of rank ", peer, " cannot be opened (can this process see its GPU?)"));
    windows_[peer] = static_cast<char*>(window);
  }
}

void PeerCopies::close(Communicator& group) {
  const c10::cuda::CUDAGuard guard(device_);
  if (stream_) C10_CUDA_CHECK(cudaStreamSynchronize(stream_));
  for (const int64_t peer : others_)
    if (windows_[peer]) C10_CUDA_CHECK(cudaIpcCloseMemHandle(windows_[peer]));
  group.barrier();  // a window is freed when nobody sees it any more
  if (windows_[rank_]) C10_CUDA_CHECK(cudaFree(windows_[rank_]));
  if (stream_) C10_CUDA_CHECK(cudaStreamDestroy(stream_));
}

void PeerCopies::abandon() {
  const c10::cuda::CUDAGuard guard(device_);
  cudaStream_t beside = nullptr;
  if (cudaStreamCreateWithFlags(&beside, cudaStreamNonBlocking) != cudaSuccess) return;
  // Beyond what any of them waits for.
  (void)cudaMemsetAsync(outbox(rank_) + slot_bytes_, 0x3f, kNumFlags * size_ * kFlagStride, beside);
  (void)cudaStreamSynchronize(beside);
}

void PeerCopies::check(const std::vector<at::Tensor>& tensors) const {
  for (const at::Tensor& tensor : tensors)
    SATIN_CHECK(tensor.is_contiguous() && tensor.device() == device_ && tensor.dtype() == tensors[0].dtype(),
                "a collective on ", device_, " of ", tensors[0].dtype(), ": expected contiguous, found ",
                tensor.sizes(), " ", tensor.strides(), " ", tensor.dtype(), " on ", tensor.device());
}

template <class Function>
at::cuda::CUDAEvent PeerCopies::on_stream(const Function& function) {
  const auto stream = c10::cuda::getStreamFromExternal(stream_, device_.index());
  at::cuda::CUDAEvent before, after;
  before.record(at::cuda::getCurrentCUDAStream(device_.index()));
  before.block(stream);
  const c10::cuda::CUDAStreamGuard guard(stream);
  function();
  after.record(stream);
  return after;
}

at::cuda::CUDAEvent PeerCopies::all_reduce(const std::vector<at::Tensor>& tensors, at::ScalarType sent_in) {
  check(tensors);
  return on_stream([&] {
    if (tensors[0].scalar_type() == sent_in) return reduce(tensors);
    const int64_t most = slot_bytes_ * size_ / static_cast<int64_t>(c10::elementSize(sent_in));
    for (const at::Tensor& tensor : tensors)
      for (const at::Tensor& part : tensor.view(-1).split(most)) {
        const std::vector<at::Tensor> copy = all_as({part}, sent_in);  // faster than to() and copy_()
        reduce(copy);
        at::_foreach_copy_({part}, copy);
      }
  });
}

void PeerCopies::reduce(const std::vector<at::Tensor>& tensors) {
  std::vector<Fragment> piece;
  int64_t offset = 0;
  const auto end_piece = [&] {
    if (!piece.empty()) reduce_piece(piece, tensors[0].scalar_type());
    piece.clear();
    offset = 0;
  };
  for (const at::Tensor& tensor : tensors) {
    const auto element = static_cast<int64_t>(tensor.element_size());
    for (int64_t at = 0; at < tensor.numel();) {
      const int64_t left = tensor.numel() - at,
                    room = (slot_bytes_ - offset) / kAlignment * kAlignment / element * size_;
      const int64_t numel = std::min(left, room);
      if (numel < std::min(left, kAlignment * size_)) {  // no room for a slice worth sending
        end_piece();
        continue;
      }
      const int64_t slice = round_up((numel + size_ - 1) / size_, kAlignment / element);
      piece.push_back({data_of(tensor) + at * element, numel, slice, offset});
      offset += slice * element;
      at += numel;
    }
  }
  end_piece();
}

void PeerCopies::reduce_piece(const std::vector<Fragment>& piece, at::ScalarType dtype) {
  const auto element = static_cast<int64_t>(c10::elementSize(dtype));
  const auto numel = [&](const Fragment& f, int64_t rank) {
    return std::clamp(f.numel - rank * f.slice, int64_t{0}, f.slice);
  };
  const auto slice = [&](const Fragment& f, int64_t rank) { return f.data + rank * f.slice * element; };
  wait_for(kTaken, num_pushes_);
  const auto push = [&](int64_t to) {
    for (const Fragment& f : piece) copy(inbox(to, rank_) + f.offset, slice(f, to), numel(f, to) * element);
  };
  for (const int64_t peer : others_) push(peer);
  tell(kSent, ++num_pushes_);
  if (size_ == 2) {  // in place; of more slices that would be rounded for each
    wait_for(kSent, num_pushes_);
    std::vector<at::Tensor> own, theirs;
    for (const Fragment& f : piece) {
      if (numel(f, rank_) == 0) continue;
      own.push_back(view(slice(f, rank_), numel(f, rank_), dtype));
      theirs.push_back(view(inbox(rank_, others_[0]) + f.offset, numel(f, rank_), dtype));
    }
    if (!own.empty()) at::_foreach_add_(own, theirs);
    tell(kTaken, num_pushes_);
    wait_for(kPulled, num_layouts_);
    for (const Fragment& f : piece) copy(outbox(rank_) + f.offset, slice(f, rank_), numel(f, rank_) * element);
    tell(kLaidOut, ++num_layouts_);
  } else {
    push(rank_);
    wait_for(kSent, num_pushes_);
    wait_for(kPulled, num_layouts_);
    add_up(outbox(rank_), piece.back().offset + piece.back().slice * element, dtype);
    tell(kTaken, num_pushes_);
    tell(kLaidOut, ++num_layouts_);
    for (const Fragment& f : piece) copy(slice(f, rank_), outbox(rank_) + f.offset, numel(f, rank_) * element);
  }
  wait_for(kLaidOut, num_layouts_);
  for (const int64_t peer : others_)
    for (const Fragment& f : piece) copy(slice(f, peer), outbox(peer) + f.offset, numel(f, peer) * element);
  tell(kPulled, num_layouts_);
}

void PeerCopies::check(const std::vector<Sliced>& wholes, const std::vector<at::Tensor>& others) const {
  std::vector<at::Tensor> all = others;
  for (const Sliced& sliced : wholes) all.push_back(sliced.whole);
  check(all);
}

at::cuda::CUDAEvent PeerCopies::all_gather(const std::vector<Sliced>& wholes, const std::vector<at::Tensor>& parts) {
  check(wholes, parts);
  return on_stream([&] {
    int64_t all_bytes = 0;
    for (const Sliced& sliced : wholes) all_bytes += slice_bytes(sliced);
    for (int64_t at = 0; at < all_bytes; at += slot_bytes_) {
      const auto slices = [&](const auto& function) {
        for_slices(wholes, at, std::min(slot_bytes_, all_bytes - at), function);
      };
      const auto slice = [&](size_t i, int64_t rank) {
        return data_of(wholes[i].whole) + rank * slice_bytes(wholes[i]);
      };
      wait_for(kPulled, num_layouts_);
      slices([&](size_t i, int64_t offset, int64_t in_piece, int64_t bytes) {
        copy(outbox(rank_) + in_piece, data_of(parts[i]) + offset, within(wholes[i], rank_, offset, bytes));
      });
      tell(kLaidOut, ++num_layouts_);
      slices([&](size_t i, int64_t offset, int64_t, int64_t bytes) {
        copy(slice(i, rank_) + offset, data_of(parts[i]) + offset, within(wholes[i], rank_, offset, bytes));
      });
      wait_for(kLaidOut, num_layouts_);
      for (const int64_t peer : others_)
        slices([&](size_t i, int64_t offset, int64_t in_piece, int64_t bytes) {
          copy(slice(i, peer) + offset, outbox(peer) + in_piece, within(wholes[i], peer, offset, bytes));
        });
      tell(kPulled, num_layouts_);
    }
  });
}

at::cuda::CUDAEvent PeerCopies::reduce_scatter(const at::Tensor& part, const std::vector<Sliced>& wholes) {
  check(wholes, {part});
  return on_stream([&] {
    for (int64_t at = 0; at < bytes_of(part); at += slot_bytes_) {
      const int64_t piece_bytes = std::min(slot_bytes_, bytes_of(part) - at);
      wait_for(kTaken, num_pushes_);
      const auto push = [&](int64_t to) {
        for_slices(wholes, at, piece_bytes, [&](size_t i, int64_t offset, int64_t in_piece, int64_t bytes) {
          copy(inbox(to, rank_) + in_piece, data_of(wholes[i].whole) + to * slice_bytes(wholes[i]) + offset,
               within(wholes[i], to, offset, bytes));
        });
      };
      for (const int64_t peer : others_) push(peer);
      tell(kSent, ++num_pushes_);
      push(rank_);
      wait_for(kSent, num_pushes_);
      add_up(data_of(part) + at, piece_bytes, part.scalar_type());
      tell(kTaken, num_pushes_);
    }
  });
}

at::cuda::CUDAEvent PeerCopies::broadcast(const at::Tensor& tensor, int64_t root) {
  check({tensor});
  return on_stream([&] {
    for (int64_t at = 0; at < bytes_of(tensor); at += slot_bytes_) {
      const int64_t bytes = std::min(slot_bytes_, bytes_of(tensor) - at);
      wait_for(kPulled, num_layouts_);
      if (rank_ == root) copy(outbox(rank_), data_of(tensor) + at, bytes);
      tell(kLaidOut, ++num_layouts_);
      wait_for(kLaidOut, num_layouts_);
      if (rank_ != root) copy(data_of(tensor) + at, outbox(root), bytes);
      tell(kPulled, num_layouts_);
    }
  });
}

void PeerCopies::add_up(char* sum, int64_t bytes, at::ScalarType dtype) {
  const auto element = static_cast<int64_t>(c10::elementSize(dtype));
  at::Tensor out = view(sum, bytes / element, dtype);
  const at::Tensor slots =
      view(inbox(rank_, 0), size_ * slot_bytes_ / element, dtype).view({size_, -1}).narrow(1, 0, bytes / element);
  if (size_ == 2)  // the same, and faster
    at::add_out(out, slots[0], slots[1]);
  else
    at::sum_out(out, slots, {0}, /*keepdim=*/false, dtype);
}

at::Tensor PeerCopies::view(char* at, int64_t numel, at::ScalarType dtype) const {
  return at::from_blob(at, {numel}, at::TensorOptions(dtype).device(device_));
}

CUdeviceptr PeerCopies::flag(int64_t owner, Flag flag, int64_t setter) const {
  return reinterpret_cast<CUdeviceptr>(outbox(owner) + slot_bytes_ + (flag * size_ + setter) * kFlagStride);
}

void PeerCopies::copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) C10_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_));
}

void PeerCopies::set_value(CUdeviceptr at, uint32_t value) {
  static const StreamValue write = driver_function("cuStreamWriteValue32");
  check_driver(write(stream_, at, value, CU_STREAM_WRITE_VALUE_DEFAULT), "cuStreamWriteValue32");
}

void PeerCopies::tell(Flag which, uint32_t count) {
  for (const int64_t peer : others_) set_value(flag(peer, which, rank_), count);
}

void PeerCopies::wait_value(CUdeviceptr at, uint32_t value) {
  static const StreamValue wait = driver_function("cuStreamWaitValue32");
  check_driver(wait(stream_, at, value, wait_flags_), "cuStreamWaitValue32");
}

void PeerCopies::wait_for(Flag which, uint32_t count) {
  for (const int64_t peer : others_) wait_value(flag(rank_, which, peer), count);
}

}  // namespace satin::dist
