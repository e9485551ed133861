// libFuzzer's entry point for the safetensors header: scripts/fuzz safetensors. fuzz_replay_test.cpp replays its
// corpus.
#include <cstdlib>
#include <vector>

#include "core/error.h"
#include "io/safetensors_header.h"

namespace satin::io {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check(std::span<const std::byte> file) {
  SafetensorsHeader header;
  try {
    header = parse_safetensors_header(file, "fuzz");
  } catch (const UserError&) {
    return;
  }
  size_t total = 0;
  std::vector<std::pair<std::string, HeaderEntry>> tensors(header.tensors.begin(), header.tensors.end());
  for (const auto& [name, entry] : tensors) {
    require(entry.begin <= entry.end && entry.end <= file.size() - header.data_begin);
    total += entry.end - entry.begin;
  }
  require(header.data_begin + total == file.size());
  // What was accepted is written and read back as it was.
  const std::string written = format_safetensors_header(tensors, header.metadata);
  std::vector<std::byte> copy(reinterpret_cast<const std::byte*>(written.data()),
                              reinterpret_cast<const std::byte*>(written.data()) + written.size());
  copy.resize(copy.size() + total);
  const SafetensorsHeader again = parse_safetensors_header(copy, "fuzz");
  require(again.metadata == header.metadata && again.tensors.size() == tensors.size());
  for (const auto& [name, entry] : tensors) {
    const HeaderEntry& same = again.tensors.at(name);
    require(same.dtype == entry.dtype && same.shape == entry.shape && same.begin == entry.begin &&
            same.end == entry.end);
  }
}

}  // namespace
}  // namespace satin::io

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  satin::io::check(std::as_bytes(std::span(data, size)));
  return 0;
}
