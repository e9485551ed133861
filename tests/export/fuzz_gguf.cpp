// libFuzzer's entry point for GGUF's header and blocks: scripts/fuzz gguf. gguf_hostile_test.cpp replays its corpus.
#include <cstdlib>

#include "core/error.h"
#include "export/gguf_header.h"

namespace satin::exporting::gguf {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check(std::span<const std::byte> file) {
  Header header;
  try {
    header = parse_header(file, "fuzz");
  } catch (const UserError&) {
    return;
  }
  std::vector<float> values;
  size_t end = 0;
  for (const TensorEntry& tensor : header.tensors) {
    require(tensor.begin >= end);
    end = tensor.begin + tensor.bytes();
    require(header.data_begin + end <= file.size());
    values.resize(static_cast<size_t>(tensor.shape.back()));
    dequantize(*tensor.type, file.subspan(header.data_begin + tensor.begin, tensor.row_bytes()), values);
  }
  // What was accepted is written and read back as it was (with our own alignment).
  std::erase_if(header.keys, [](const auto& key) { return key.first == "general.alignment"; });
  const std::string written = format_header(header);
  std::vector<std::byte> copy(reinterpret_cast<const std::byte*>(written.data()),
                              reinterpret_cast<const std::byte*>(written.data()) + written.size());
  if (!header.tensors.empty()) copy.resize(copy.size() + header.tensors.back().begin + header.tensors.back().bytes());
  const Header again = parse_header(copy, "fuzz");
  require(again.keys.size() == header.keys.size() && again.tensors.size() == header.tensors.size());
  for (size_t i = 0; i < header.tensors.size(); ++i)
    require(again.tensors[i].name == header.tensors[i].name && again.tensors[i].shape == header.tensors[i].shape &&
            again.tensors[i].type == header.tensors[i].type);
}

}  // namespace
}  // namespace satin::exporting::gguf

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  satin::exporting::gguf::check(std::as_bytes(std::span(data, size)));
  return 0;
}
