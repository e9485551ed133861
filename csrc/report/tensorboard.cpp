#include "report/tensorboard.h"

#include <chrono>
#include <cstring>
#include <span>

#include "core/error.h"
#include "core/file.h"

namespace satin::report {
namespace fs = std::filesystem;
namespace {

uint32_t masked_crc(const std::string& bytes) {
  const uint32_t crc = crc32c(std::as_bytes(std::span(bytes)));
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class T>
std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);  // little-endian hosts only, as the format is
  return bytes;
}

// Protobuf's wire format: a key is field << 3 | type, with type 0 varint, 1 eight bytes, 2 length-delimited, 5 four
// bytes.
std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes += static_cast<char>(value);
}
std::string key(uint32_t field, uint32_t type) { return varint(field << 3 | type); }
std::string delimited(uint32_t field, const std::string& bytes) { return key(field, 2) + varint(bytes.size()) + bytes; }

std::string event(int64_t step, const std::string& payload) {
  const double wall_time_s = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return key(1, 1) + raw(wall_time_s) + key(2, 0) + varint(static_cast<uint64_t>(step)) + payload;
}

/// The step of an event that event() wrote.
int64_t step_of(const std::string& data) {
  uint64_t step = 0;
  for (size_t at = 1 + 8 + 1, shift = 0; at < data.size() && shift < 64; ++at, shift += 7) {
    step |= static_cast<uint64_t>(data[at] & 0x7f) << shift;
    if (!(data[at] & 0x80)) break;
  }
  return static_cast<int64_t>(step);
}

/// Bytes of the leading whole records whose step is at most `last_step`.
size_t size_up_to(const std::string& file, int64_t last_step) {
  size_t at = 0;
  while (file.size() - at >= 16) {
    const std::string length_bytes = file.substr(at, 8);
    uint64_t length;
    std::memcpy(&length, length_bytes.data(), 8);
    if (file.substr(at + 8, 4) != raw(masked_crc(length_bytes)) || length > file.size() - at - 16) break;
    const std::string data = file.substr(at + 12, length);
    if (file.substr(at + 12 + length, 4) != raw(masked_crc(data)) || step_of(data) > last_step) break;
    at += 16 + length;
  }
  return at;
}

}  // namespace

TensorBoardWriter::TensorBoardWriter(const fs::path& directory, int64_t last_step)
    : path_(directory / "events.out.tfevents.0.satin") {
  size_t kept_bytes = 0;
  if (last_step >= 0 && fs::exists(path_)) kept_bytes = size_up_to(read_file(path_), last_step);
  out_.open(path_, kept_bytes > 0 ? std::ios::app | std::ios::binary : std::ios::trunc | std::ios::binary);
  if (!out_) throw UserError(cat("cannot open ", path_.string(), " for writing"));
  if (kept_bytes > 0)
    fs::resize_file(path_, kept_bytes);
  else
    write_record(event(0, delimited(3, "brain.Event:2")));
  flush();
}

void TensorBoardWriter::add_scalar(const std::string& tag, double value, int64_t step) {
  const std::string summary_value = delimited(1, tag) + key(2, 5) + raw(static_cast<float>(value));
  write_record(event(step, delimited(5, delimited(1, summary_value))));
}

void TensorBoardWriter::write_record(const std::string& data) {
  const std::string length = raw(static_cast<uint64_t>(data.size()));
  out_ << length << raw(masked_crc(length)) << data << raw(masked_crc(data));
}

void TensorBoardWriter::flush() {
  out_.flush();
  if (!out_) throw UserError(cat("cannot write ", path_.string(), ": is the disk full?"));
}

}  // namespace satin::report
